"""The built-in catalogue's products, written by hand for tagstream: invented brands, honest shop titles.

One product a line:

    shape  pattern  colour | title

`shape` names a drawing in garments.py or goods.py, `pattern` and `colour` stand in patterns.py. The
Chinese products are clothes only: the bundled champion's Chinese groups describe nothing else.
"""

from __future__ import annotations

BRANDS = (
    "Kestrel", "Northfell", "Mirelle", "Tarn & Co", "Solvane", "Bluewick", "Pacer", "Ostara", "Ravello",
    "Juniper Lane", "Haldis", "Indra Looms", "Quill", "Vireo", "Copperleaf", "Zephyra",
)  # fmt: skip

ENGLISH = """
tshirt        solid      navy        | Kestrel Men Navy Blue Solid Round Neck T-shirt
tshirt        printed    black       | Kestrel Men Printed Black T-shirt
tshirt        printed    white       | Northfell Men Summit Graphic White T-shirt
tshirt        striped    red         | Bluewick Men Striped Red T-shirt
tshirt        printed    grey        | Pacer Men Run Club Grey Melange T-shirt
tshirt        solid      green       | Kestrel Men Basic Green Tee
tshirt        printed    yellow      | Vireo Boys Printed Yellow T-shirt
tshirt        solid      pink        | Vireo Girls Heart Pink T-shirt
tshirt        striped    navy        | Tarn & Co Men Sailor Stripe Navy Blue T-shirt
tshirt        solid      purple      | Pacer Women Training Purple T-shirt
tshirt        printed    orange      | Zephyra Men Sunset Print Orange T-shirt
tshirt        solid      olive       | Northfell Men Olive Crew Neck T-shirt
tshirt        printed    blue        | Vireo Kids Boys Rocket Print Blue T-shirt
tshirt        solid      maroon      | Kestrel Men Slim Fit Maroon T-shirt
polo          solid      white       | Bluewick Men White Polo T-shirt
polo          striped    blue        | Bluewick Men Striped Blue Polo T-shirt
polo          solid      maroon      | Tarn & Co Men Maroon Polo T-shirt
polo          solid      black       | Pacer Men Dry Fit Black Polo Tshirt
polo          solid      green       | Kestrel Men Solid Green Polo T-shirt
polo          solid      lavender    | Haldis Men Lavender Pique Polo T-shirt
polo          solid      navy        | Northfell Men Club Navy Blue Polo T-shirt
shirt         checked    blue        | Tarn & Co Men Check Blue Shirt
shirt         checked    red         | Northfell Men Checks Red Flannel Shirt
shirt         solid      white       | Haldis Men Formal White Shirt
shirt         striped    light-blue  | Haldis Men Formal Striped Blue Shirt
shirt         solid      black       | Solvane Men Slim Fit Black Shirt
shirt         checked    purple      | Tarn & Co Men Check Purple Shirt
shirt         solid      pink        | Haldis Men Office Pink Shirt
shirt         checked    green       | Bluewick Men Casual Check Green Shirt
shirt         denim      blue        | Copperleaf Men Washed Denim Blue Shirt
shirt         solid      khaki       | Northfell Men Trail Khaki Shirt
shirt         striped    grey        | Haldis Men Grey Pin Stripe Formal Shirt
short_shirt   checked    navy        | Bluewick Men Half Sleeve Navy Blue Check Shirt
short_shirt   floral     teal        | Zephyra Men Hawaiian Floral Teal Shirt
short_shirt   solid      cream       | Tarn & Co Men Linen Cream Half Sleeve Shirt
short_shirt   dotted     white       | Vireo Boys White Polka Shirt
shirt         checked    orange      | Vireo Boys Orange Check Shirt
shirt         solid      light-blue  | Quill Women Classic Blue Shirt
blouse        floral     cream       | Mirelle Women Floral Print Cream Top
blouse        solid      red         | Mirelle Women Ruffled Red Top
blouse        dotted     black       | Quill Women Polka Dot Black Blouse
blouse        lace       white       | Juniper Lane Women Lace White Top
top           printed    turquoise   | Mirelle Women Printed Turquoise Blue Top
top           solid      purple      | Juniper Lane Women Purple Cap Sleeve Top
top           striped    pink        | Mirelle Women Striped Pink Top
top           solid      black       | Ostara Women Black Evening Top
top           floral     yellow      | Juniper Lane Women Yellow Summer Top
top           solid      peach       | Vireo Girls Peach Top
camisole      solid      magenta     | Ostara Women Magenta Camisole
camisole      lace       black       | Ostara Women Lace Black Camisole
kurta         solid      maroon      | Indra Looms Women Maroon Kurta
kurta         floral     purple      | Indra Looms Women Printed Purple Kurta
kurta         solid      cream       | Indra Looms Men Silk Cream Kurta
kurta         striped    orange      | Indra Looms Women Striped Orange Kurta
kurta         dotted     green       | Indra Looms Women Block Print Green Kurti
kurta         solid      white       | Indra Looms Men Cotton White Kurta
kurta         solid      mustard     | Indra Looms Women Mustard Embroidered Kurta
kurta         floral     blue        | Indra Looms Women Blue Printed Kurta
sweatshirt    solid      grey        | Pacer Men Grey Melange Sweatshirt
sweatshirt    printed    navy        | Kestrel Men Varsity Print Navy Blue Sweatshirt
sweatshirt    striped    red         | Bluewick Women Striped Red Sweatshirt
hoodie        solid      black       | Pacer Men Hooded Black Sweatshirt
hoodie        printed    green       | Kestrel Boys Dino Hooded Green Sweatshirt
hoodie        solid      pink        | Pacer Women Pink Hooded Sweatshirt
sweater       knit       brown       | Tarn & Co Men Cable Knit Brown Sweater
sweater       knit       maroon      | Haldis Men Lambswool Maroon Sweater
sweater       striped    grey        | Quill Women Striped Grey Sweater
cardigan      knit       purple      | Quill Women Purple Cardigan
cardigan      knit       beige       | Juniper Lane Women Beige Button Down Cardigan
jacket        solid      black       | Northfell Men Windproof Black Jacket
jacket        solid      olive       | Northfell Men Padded Olive Jacket
jacket        denim      blue        | Copperleaf Women Denim Blue Jacket
jacket        solid      red         | Pacer Men Track Red Jacket
jacket        solid      brown       | Copperleaf Men Leather Brown Jacket
blazer        solid      navy        | Haldis Men Formal Navy Blue Blazer
blazer        solid      charcoal    | Haldis Men Charcoal Two Button Blazer
vest          solid      charcoal    | Haldis Men Charcoal Waistcoat
dress         floral     red         | Mirelle Women Floral Red Dress
dress         solid      black       | Ostara Women Little Black Dress
dress         dotted     navy        | Juniper Lane Women Polka Dot Navy Blue Dress
dress         solid      teal        | Ostara Women Teal Party Dress
dress         printed    pink        | Vireo Girls Bow Pink Dress
slip_dress    solid      maroon      | Ostara Women Satin Maroon Dress
slip_dress    floral     white       | Mirelle Women White Floral Sun Dress
shirt_dress   striped    blue        | Quill Women Striped Blue Shirt Dress
skirt         floral     cream       | Juniper Lane Women Floral Cream Skirt
skirt         solid      green       | Mirelle Women Flared Green Skirt
short_skirt   denim      blue        | Copperleaf Women Denim Blue Skirt
pleated_skirt solid      black       | Quill Women Pleated Black Skirt
jeans         denim      blue        | Copperleaf Men Blue Slim Fit Jeans
jeans         denim      navy        | Copperleaf Men Dark Navy Blue Regular Jeans
jeans         denim      black       | Copperleaf Women Skinny Black Jeans
jeans         denim      light-blue  | Copperleaf Women Light Wash Blue Jeans
jeans         denim      grey        | Kestrel Men Low Rise Grey Jeans
jeans         denim      blue        | Vireo Girls Embroidered Blue Jeans
trousers      solid      khaki       | Northfell Men Cargo Khaki Trousers
trousers      solid      black       | Haldis Men Formal Black Trousers
trousers      solid      grey        | Haldis Men Formal Grey Trousers
trousers      solid      beige       | Tarn & Co Men Chino Beige Trousers
trousers      solid      brown       | Haldis Women Office Brown Trousers
wide_trousers solid      navy        | Quill Women Palazzo Navy Blue Trousers
track_pants   solid      black       | Pacer Men Black Track Pants
track_pants   solid      navy        | Pacer Men Training Navy Blue Track Pants
track_pants   solid      grey        | Pacer Women Grey Track Pants
harem_trousers floral    orange      | Indra Looms Women Orange Printed Harem Pants
shorts        solid      navy        | Pacer Men Running Navy Blue Shorts
shorts        checked    beige       | Tarn & Co Men Check Beige Shorts
shorts        camouflage olive       | Northfell Men Camouflage Olive Shorts
shorts        denim      blue        | Copperleaf Women Denim Blue Shorts
shorts        solid      red         | Pacer Boys Football Red Shorts
dungarees     denim      blue        | Vireo Girls Denim Blue Dungarees
sports_shoe   solid      white       | Pacer Men Glide White Sports Shoes
sports_shoe   solid      navy        | Pacer Men Navy Blue Running Shoes
sports_shoe   solid      black       | Pacer Men Court Black Sports Shoes
sports_shoe   solid      red         | Pacer Men Sprint Red Running Shoes
sports_shoe   solid      grey        | Northfell Men Trail Grey Sports Shoes
sports_shoe   solid      pink        | Pacer Women Glide Pink Running Shoes
sports_shoe   solid      silver      | Pacer Women Silver Training Shoes
sports_shoe   solid      blue        | Pacer Unisex Tempo Blue Running Shoes
sports_shoe   solid      orange      | Pacer Boys Dash Orange Sports Shoes
casual_shoe   solid      black       | Kestrel Men Canvas Black Casual Shoes
casual_shoe   solid      brown       | Tarn & Co Men Leather Brown Casual Shoes
casual_shoe   solid      white       | Kestrel Unisex Canvas White Casual Shoes
casual_shoe   solid      red         | Kestrel Unisex Red Sneakers
casual_shoe   solid      navy        | Bluewick Men Deck Navy Blue Casual Shoes
casual_shoe   solid      tan         | Copperleaf Men Suede Tan Casual Shoes
casual_shoe   solid      green       | Kestrel Men Skate Green Casual Shoe
casual_shoe   solid      purple      | Mirelle Women Purple Casual Shoes
casual_shoe   solid      grey        | Bluewick Men Grey Slip On Casual Shoes
formal_shoe   solid      black       | Haldis Men Black Formal Shoes
formal_shoe   solid      brown       | Haldis Men Brown Leather Formal Shoes
formal_shoe   solid      tan         | Haldis Men Brogue Tan Formal Shoes
heel          solid      black       | Ostara Women Black Heels
heel          solid      red         | Ostara Women Patent Red Heels
heel          solid      beige       | Mirelle Women Beige Pointed Heels
heel          solid      gold        | Ostara Women Gold Party Heels
heel          solid      purple      | Ravello Women Suede Purple Heels
sandal        solid      brown       | Copperleaf Men Brown Sandals
sandal        solid      black       | Ravello Women Strappy Black Sandals
sandal        solid      tan         | Ravello Women Tan Flat Sandals
sandal        solid      pink        | Vireo Girls Pink Sandals
flip_flops    solid      blue        | Zephyra Men Blue Flip Flops
flip_flops    solid      black       | Zephyra Unisex Black Flip Flops
flip_flops    solid      pink        | Zephyra Women Beach Pink Flip Flops
flip_flops    solid      olive       | Northfell Men Olive Flip Flops
handbag       solid      black       | Ravello Women Black Handbag
handbag       solid      brown       | Ravello Women Leather Brown Handbag
handbag       solid      red         | Ravello Women Croc Red Handbag
handbag       solid      beige       | Mirelle Women Beige Tote Handbag
handbag       solid      teal        | Ravello Women Teal Satchel Handbag
handbag       solid      gold        | Ostara Women Gold Evening Handbag
handbag       solid      purple      | Mirelle Women Purple Handbag
backpack      solid      black       | Northfell Unisex Black Backpack
backpack      solid      navy        | Northfell Unisex Daypack Navy Blue Backpack
backpack      solid      red         | Vireo Kids Unisex School Red Backpack
backpack      camouflage olive       | Northfell Men Camouflage Olive Backpack
wallet        solid      brown       | Copperleaf Men Leather Brown Wallet
wallet        solid      black       | Haldis Men Black Wallet
wallet        solid      pink        | Ravello Women Zip Around Pink Wallet
wallet        solid      tan         | Copperleaf Men Bifold Tan Wallet
watch         solid      black       | Solvane Men Black Dial Watch
watch         solid      white       | Solvane Women White Dial Watch
watch         solid      navy        | Solvane Men Chronograph Navy Blue Watch
watch         solid      brown       | Solvane Men Brown Leather Strap Watch
watch         solid      pink        | Solvane Women Pink Dial Watch
watch         solid      gold        | Solvane Women Gold Analogue Watch
cap           solid      black       | Pacer Men Black Cap
cap           solid      red         | Kestrel Unisex Red Baseball Cap
cap           camouflage khaki       | Northfell Men Camouflage Khaki Cap
sunglasses    solid      black       | Solvane Men Wayfarer Black Sunglasses
sunglasses    solid      brown       | Solvane Women Oversized Brown Sunglasses
sunglasses    solid      purple      | Ravello Women Purple Sunglasses
belt          solid      brown       | Copperleaf Men Leather Brown Belt
belt          solid      black       | Haldis Men Formal Black Belt
belt          solid      tan         | Copperleaf Women Braided Tan Belt
socks         striped    navy        | Pacer Men Striped Navy Blue Socks
socks         solid      white       | Pacer Unisex Cushioned White Socks
socks         solid      grey        | Haldis Men Solid Grey Socks
tie           striped    maroon      | Haldis Men Striped Maroon Tie
tie           dotted     navy        | Haldis Men Dotted Navy Blue Tie
"""

CHINESE = """
dress         floral     red         | 法式复古碎花雪纺连衣裙 夏季新款
dress         solid      black       | 赫本风小黑裙 收腰显瘦V领连衣裙
dress         dotted     navy        | 复古波点连衣裙女 收腰A字中长裙
dress         solid      pink        | 甜美蝴蝶结公主裙 粉色泡泡袖连衣裙
dress         lace       white       | 白色蕾丝镂空连衣裙 仙女裙 度假
dress         floral     yellow      | 清新碎花吊带连衣裙 黄色沙滩裙
dress         solid      maroon      | 酒红色丝绒连衣裙 高贵气质礼服裙
dress         solid      dark-green  | 墨绿色缎面连衣裙 收腰显瘦 宴会
dress         checked    beige       | 英伦格子连衣裙 秋冬学院风
dress         printed    white       | 字母印花短袖T恤裙 宽松休闲连衣裙
slip_dress    solid      black       | 黑色吊带裙 性感露背打底连衣裙
slip_dress    solid      light-blue  | 浅蓝色缎面吊带裙 法式慵懒风
slip_dress    floral     cream       | 米白色碎花吊带长裙 海边度假
slip_dress    knit       purple      | 紫色针织背心裙 修身鱼尾裙
slip_dress    solid      gold        | 金色亮片吊带裙 派对性感包臀裙
shirt_dress   striped    blue        | 蓝白条纹衬衫裙 系带收腰中长款
shirt_dress   solid      khaki       | 卡其色工装衬衫连衣裙 翻领腰带款
shirt_dress   denim      blue        | 牛仔衬衫裙 长袖复古连衣裙女
shirt_dress   checked    red         | 红色格子衬衫裙 文艺范 秋装
shirt_dress   solid      white       | 通勤白色衬衫裙 纯棉七分袖
skirt         solid      black       | 黑色高腰A字半身裙 显瘦百搭
skirt         floral     green       | 绿色碎花雪纺半身裙 高腰大裙摆
skirt         lace       cream       | 杏色网纱半身裙 仙气蓬蓬裙
skirt         solid      red         | 红色高腰伞裙 复古中长半身裙
skirt         dotted     white       | 波点雪纺半身长裙 松紧腰 清新
short_skirt   denim      blue        | 高腰牛仔裙 A字短裙女 夏季毛边
short_skirt   solid      black       | 皮裙女 黑色包臀半身短裙 拉链
short_skirt   checked    grey        | 灰色格子半身短裙 英伦学院风
short_skirt   denim      light-blue  | 浅色水洗牛仔半身裙 不规则毛边
pleated_skirt solid      grey        | 百褶裙女 灰色高腰学院风半身裙
pleated_skirt solid      pink        | 粉色百褶半身裙 少女青春短裙
pleated_skirt checked    navy        | 藏青色格子百褶裙 日系学院风
pleated_skirt solid      khaki       | 金丝绒百褶长裙 卡其色垂坠感
tshirt        solid      white       | 纯棉宽松白色短袖T恤 男士
tshirt        solid      black       | 黑色圆领短袖T恤女 纯色打底衫
tshirt        printed    white       | 卡通印花短袖T恤 宽松韩版上衣
tshirt        striped    navy        | 海军风条纹T恤 休闲圆领短袖
tshirt        printed    black       | 嘻哈字母印花T恤 街头潮男短袖
tshirt        solid      yellow      | 姜黄色纯棉T恤 落肩袖宽松上衣
tshirt        printed    grey        | 国潮刺绣短袖T恤男 中国风上衣
tshirt        printed    pink        | 粉色字母印花上衣 青春活力短袖
polo          solid      navy        | 商务polo衫男 藏青色翻领短袖
polo          striped    green       | 撞色条纹polo衫 复古休闲上衣
polo          solid      white       | 白色polo领短袖 简约运动上衣
shirt         solid      white       | 白色职业衬衫女 长袖翻领通勤OL
shirt         striped    blue        | 蓝色竖条纹衬衫男 商务长袖
shirt         checked    red         | 红黑格子衬衫 宽松长袖外套 情侣款
shirt         denim      blue        | 水洗牛仔衬衫男 休闲长袖上衣
shirt         floral     black       | 复古印花衬衫 港风宽松男女同款
shirt         solid      beige       | 棉麻立领衬衫 中国风盘扣上衣 米色
short_shirt   solid      light-blue  | 浅蓝色短袖衬衫 亚麻休闲男装
short_shirt   floral     green       | 夏威夷花衬衫男 短袖度假沙滩
blouse        solid      pink        | 粉色雪纺衫女 喇叭袖荷叶边上衣
blouse        lace       white       | 蕾丝镂空雪纺衫 白色七分袖上衣
blouse        dotted     black       | 黑色波点雪纺衬衫 飘带蝴蝶结
blouse        floral     cream       | 碎花娃娃衫 泡泡袖甜美清新上衣
top           solid      red         | 红色一字领露肩上衣 性感修身
top           solid      lavender    | 香芋紫短袖针织衫 短款修身
camisole      solid      white       | 白色真丝吊带背心 蚕丝打底衫
camisole      lace       black       | 黑色蕾丝吊带背心 性感内搭
sweatshirt    solid      grey        | 灰色圆领卫衣 纯棉加绒男女款
sweatshirt    printed    navy        | 字母刺绣卫衣 藏青色套头衫
sweatshirt    printed    pink        | 卡通印花卫衣女 粉色宽松套头
hoodie        solid      black       | 黑色连帽卫衣男 抽绳宽松潮牌
hoodie        camouflage olive       | 军绿色迷彩连帽卫衣 街头工装
hoodie        printed    white       | 白色连帽卫衣 字母印花 情侣装
hoodie        solid      orange      | 橙色连帽卫衣 撞色拼接 运动风
sweater       knit       cream       | 米白色高领毛衣 慵懒风针织衫
sweater       knit       maroon      | 酒红色羊毛衫 半高领打底毛衣
sweater       striped    grey        | 黑灰条纹针织衫 圆领套头毛衣
cardigan      knit       beige       | 杏色针织开衫女 V领纽扣外套
cardigan      knit       blue        | 蓝色麻花毛衣开衫 文艺复古
jacket        solid      black       | 黑色棒球服 男士立领拉链外套
jacket        denim      blue        | 破洞牛仔外套女 宽松复古夹克
jacket        solid      olive       | 军绿色工装夹克 多口袋外套男
jacket        solid      red         | 红色冲锋衣 连帽防风户外外套
blazer        solid      black       | 黑色小西装外套女 一粒扣通勤
blazer        checked    grey        | 英伦格子西装外套 双排扣复古
blazer        solid      navy        | 藏青色修身西服 男士商务正装
trench        solid      khaki       | 卡其色双排扣风衣 中长款系带
trench        solid      black       | 黑色长款风衣女 翻领收腰外套
vest          knit       navy        | 学院风针织马甲 V领背心 藏青色
jeans         denim      blue        | 直筒牛仔裤男 高腰水洗蓝色长裤
jeans         denim      light-blue  | 浅蓝色破洞牛仔裤女 小脚九分裤
jeans         denim      black       | 黑色修身铅笔裤 弹力小脚牛仔裤
trousers      solid      khaki       | 卡其色休闲裤男 纯棉直筒长裤
trousers      solid      black       | 黑色西装裤女 高腰九分烟管裤
wide_trousers solid      black       | 黑色阔腿裤女 高腰垂坠感长裤
wide_trousers striped    beige       | 条纹棉麻阔腿裤 松紧腰九分裤
wide_trousers denim      blue        | 高腰牛仔阔腿裤 毛边显瘦长裤
track_pants   solid      grey        | 灰色束脚运动裤 抽绳休闲卫裤
track_pants   solid      black       | 侧边条纹运动裤男 黑色小脚裤
harem_trousers solid     olive       | 军绿色哈伦裤 工装松紧腰垮裤
harem_trousers solid     brown       | 棉麻灯笼裤 文艺复古民族风裤子
shorts        denim      blue        | 牛仔短裤女 高腰毛边 夏季热裤
shorts        solid      khaki       | 五分裤男 休闲工装短裤 卡其色
shorts        solid      black       | 黑色运动短裤 松紧腰抽绳五分裤
dungarees     denim      blue        | 牛仔背带裤女 宽松减龄连体裤
"""

#: Advertising copy for the Chinese products, by what the title says it is. One is chosen per product.
CHINESE_COPY = {
    "裙": (
        "收腰的设计勾勒出纤细的腰线，裙摆随步伐轻轻摆动，优雅又不失活力。",
        "面料轻盈透气，上身垂坠感十足，修饰身形的同时更显清新气质。",
        "简约的剪裁经典耐看，搭配一双小白鞋，日常出街也很时髦。",
    ),
    "裤": (
        "高腰的版型拉长腿部比例，面料柔软有弹性，久坐也不会紧绷。",
        "利落的线条修饰腿型，两侧口袋方便实用，休闲通勤都合适。",
        "松紧腰头穿脱方便，宽松的裤腿遮肉显瘦，百搭又舒适。",
    ),
    "上衣": (
        "柔软亲肤的面料穿着舒适，宽松的版型不挑身材，日常百搭。",
        "细致的走线与利落的剪裁彰显品质，简约的设计让你轻松穿出时尚感。",
        "经典的领口设计修饰颈部线条，内搭外穿都很好看。",
    ),
}

ENGLISH_COPY = (
    "Keeps its shape and colour for years; carefully finished in every detail.",
    "A clean design with careful stitching, made for every day.",
    "Light, comfortable and made to last.",
)
