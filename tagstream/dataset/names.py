"""Display names of groups and values in the other language, where they are certain."""

from __future__ import annotations

GROUP_NAMES: dict[str, dict[str, str]] = {
    "gender": {"en": "Gender", "zh": "适用性别"},
    "masterCategory": {"en": "Main category", "zh": "大类"},
    "subCategory": {"en": "Category", "zh": "品类"},
    "articleType": {"en": "Article type", "zh": "商品类型"},
    "baseColour": {"en": "Colour", "zh": "颜色"},
    "season": {"en": "Season", "zh": "季节"},
    "usage": {"en": "Usage", "zh": "用途"},
    "类型": {"en": "Garment", "zh": "类型"},
    "材质": {"en": "Material", "zh": "材质"},
    "颜色": {"en": "Colour", "zh": "颜色"},
    "风格": {"en": "Style", "zh": "风格"},
    "图案": {"en": "Pattern", "zh": "图案"},
    "版型": {"en": "Fit", "zh": "版型"},
    "衣样式": {"en": "Kind of top", "zh": "衣样式"},
}

_EN_TO_ZH: dict[str, dict[str, str]] = {
    "gender": {"Men": "男士", "Women": "女士", "Unisex": "男女通用", "Boys": "男童", "Girls": "女童"},
    "masterCategory": {
        "Apparel": "服装", "Accessories": "配饰", "Footwear": "鞋履", "Personal Care": "个人护理",
        "Free Items": "赠品", "Sporting Goods": "体育用品", "Home": "家居",
    },
    "subCategory": {
        "Topwear": "上装", "Bottomwear": "下装", "Shoes": "鞋", "Bags": "箱包", "Watches": "手表",
        "Innerwear": "内衣", "Eyewear": "眼镜", "Sandal": "凉鞋", "Wallets": "钱包",
        "Flip Flops": "人字拖", "Belts": "腰带", "Socks": "袜子", "Fragrance": "香水",
        "Headwear": "帽子", "Dress": "连衣裙", "Ties": "领带", "Jewellery": "首饰", "Scarves": "围巾",
        "Saree": "纱丽", "Makeup": "彩妆", "Nails": "美甲", "Lips": "唇部彩妆", "Gloves": "手套",
        "Cufflinks": "袖扣", "Umbrellas": "雨伞", "Free Gifts": "赠品", "Skin Care": "护肤",
        "Apparel Set": "套装",
    },
    "articleType": {
        "Tshirts": "T恤", "Shirts": "衬衫", "Casual Shoes": "休闲鞋", "Watches": "手表",
        "Sports Shoes": "运动鞋", "Handbags": "手提包", "Tops": "上衣", "Heels": "高跟鞋",
        "Sunglasses": "太阳镜", "Wallets": "钱包", "Sandals": "凉鞋", "Flip Flops": "人字拖",
        "Belts": "腰带", "Briefs": "三角内裤", "Socks": "袜子", "Backpacks": "双肩包",
        "Formal Shoes": "正装鞋", "Jeans": "牛仔裤", "Trousers": "长裤", "Shorts": "短裤",
        "Flats": "平底鞋", "Sweatshirts": "卫衣", "Sweaters": "毛衣", "Track Pants": "运动裤",
        "Dresses": "连衣裙", "Jackets": "夹克", "Caps": "帽子", "Ties": "领带", "Clutches": "手拿包",
        "Deodorant": "止汗香体剂", "Bra": "文胸", "Leggings": "打底裤", "Skirts": "半身裙",
        "Scarves": "围巾", "Sarees": "纱丽", "Duffel Bag": "旅行袋", "Nail Polish": "指甲油",
        "Laptop Bag": "电脑包", "Earrings": "耳环", "Lipstick": "口红", "Rings": "戒指",
        "Bracelet": "手链", "Gloves": "手套", "Umbrellas": "雨伞", "Cufflinks": "袖扣",
        "Pendant": "吊坠", "Perfume and Body Mist": "香水", "Mobile Pouch": "手机袋", "Swimwear": "泳装",
        "Boxers": "平角内裤", "Stoles": "披肩", "Tights": "紧身裤", "Blazers": "西装外套",
        "Suits": "西装",
    },
    "baseColour": {
        "Black": "黑色", "White": "白色", "Blue": "蓝色", "Brown": "棕色", "Grey": "灰色", "Red": "红色",
        "Green": "绿色", "Navy Blue": "藏青色", "Purple": "紫色", "Pink": "粉色", "Maroon": "栗色",
        "Beige": "米色", "Yellow": "黄色", "Silver": "银色", "Orange": "橙色", "Olive": "橄榄色",
        "Gold": "金色", "Multi": "多色", "Cream": "奶油色", "Lavender": "薰衣草紫", "Charcoal": "炭灰色",
        "Off White": "米白色", "Khaki": "卡其色", "Copper": "古铜色", "Peach": "桃色",
        "Magenta": "品红色", "Skin": "肤色", "Mustard": "芥末黄", "Bronze": "青铜色", "Rust": "铁锈色",
        "Turquoise Blue": "绿松石蓝", "Teal": "蓝绿色", "Burgundy": "酒红色", "Rose": "玫瑰色",
        "Nude": "裸色", "Coffee Brown": "咖啡色", "Sea Green": "海绿色", "Lime Green": "青柠绿",
        "Tan": "棕褐色",
    },
    "season": {"Fall": "秋季", "Summer": "夏季", "Winter": "冬季", "Spring": "春季"},
    "usage": {
        "Casual": "休闲", "Sports": "运动", "Formal": "正式", "Ethnic": "民族服饰",
        "Smart Casual": "商务休闲", "Travel": "旅行", "Party": "派对", "Home": "家居",
    },
}  # fmt: skip

_ZH_TO_EN: dict[str, dict[str, str]] = {
    "类型": {"上衣": "Top", "裙": "Dress or skirt", "裤": "Trousers"},
    "材质": {
        "牛仔布": "Denim", "蕾丝": "Lace", "棉": "Cotton", "网纱": "Mesh", "针织": "Knit",
        "雪纺": "Chiffon", "水洗": "Washed", "蚕丝": "Silk", "混纺": "Blend", "丝绒": "Velvet",
        "纤维": "Fibre", "棉麻": "Cotton and linen", "亚麻": "Linen", "羊毛": "Wool",
        "涤纶": "Polyester", "斜纹": "Twill", "天丝": "Lyocell",
    },
    "颜色": {
        "黑色": "Black", "白色": "White", "蓝色": "Blue", "粉色": "Pink", "红色": "Red", "灰色": "Grey",
        "绿色": "Green", "黄色": "Yellow", "浅蓝色": "Light blue", "深蓝色": "Dark blue",
        "紫色": "Purple", "军绿色": "Army green", "卡其色": "Khaki", "粉红色": "Pink", "金色": "Gold",
        "银色": "Silver", "墨绿色": "Dark green", "杏色": "Apricot", "米白色": "Off white",
        "酒红色": "Burgundy", "纯色": "Plain", "黑白": "Black and white", "迷彩色": "Camouflage",
        "深色": "Dark", "浅色": "Light", "藏蓝色": "Navy blue", "淡蓝色": "Pale blue",
        "姜黄色": "Ginger yellow",
    },
    "风格": {
        "简约": "Minimal", "性感": "Sexy", "休闲": "Casual", "复古": "Retro", "清新": "Fresh",
        "潮": "Trendy", "青春": "Youthful", "街头": "Street", "文艺": "Artistic", "运动": "Sporty",
        "知性": "Intellectual", "淑女": "Ladylike", "高贵": "Noble", "英伦": "British",
        "通勤": "Commuter", "工装": "Workwear", "职场": "Office", "欧美": "Western", "嘻哈": "Hip hop",
        "韩版": "Korean", "中国风": "Chinese", "民族风": "Ethnic", "朋克": "Punk", "日系": "Japanese",
        "ol": "Office lady",
    },
    "图案": {
        "线条": "Lines", "印花": "Print", "复古": "Retro", "撞色": "Contrast colours", "条纹": "Stripes",
        "刺绣": "Embroidery", "纯色": "Plain", "蕾丝": "Lace", "蝴蝶结": "Bow", "文字": "Writing",
        "字母": "Letters", "格子": "Checks", "碎花": "Floral", "波点": "Dots", "卡通": "Cartoon",
        "植物": "Plants", "几何": "Geometric", "拼色": "Colour block", "迷彩": "Camouflage",
        "渐变": "Gradient", "抽象": "Abstract",
    },
    "版型": {"显瘦": "Slimming", "宽松": "Loose", "立体剪裁": "Tailored"},
    "衣样式": {
        "衬衫": "Shirt", "外套": "Jacket", "卫衣": "Sweatshirt", "风衣": "Trench coat",
        "针织衫": "Knitted top", "西装": "Blazer", "开衫": "Cardigan", "毛衣": "Sweater",
        "雪纺衫": "Chiffon blouse", "棒球服": "Baseball jacket", "polo": "Polo shirt",
        "马甲": "Waistcoat", "打底衫": "Base layer", "t恤": "T-shirt",
    },
}  # fmt: skip


def value_names(group: str, value: str) -> dict[str, str]:
    """Display names per language beside the value itself; empty where none is certain."""
    if zh := _EN_TO_ZH.get(group, {}).get(value):
        return {"zh": zh}
    if en := _ZH_TO_EN.get(group, {}).get(value):
        return {"en": en}
    return {}
