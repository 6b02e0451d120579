-- Compares the tag index with one product's tags, and repairs it. Atomic; everything is in one slot.
--
-- KEYS  1 product
-- ARGV  1 what comes before "product:" in KEYS[1]  2 product_id  3 repair (0|1)
--       4 a tag, "group=value", under which the index has the product; empty: check all tags of the product
-- Reply: how many entries are wrong
--
-- The numbers in "meta" count the products' tags, so a repaired entry does not change them.

local prefix, product_id, repairs = ARGV[1] .. 'tag:', ARGV[2], ARGV[3] == '1'
local scores = {}
for _, tag in ipairs(cjson.decode(redis.call('HGET', KEYS[1], 'tags') or '[]')) do
    scores[tag.group .. '=' .. tag.value] = tag.score
end

if ARGV[4] ~= '' then
    if scores[ARGV[4]] or not redis.call('ZSCORE', prefix .. ARGV[4], product_id) then return 0 end
    if repairs then redis.call('ZREM', prefix .. ARGV[4], product_id) end
    return 1
end

local wrong = 0
for tag, score in pairs(scores) do
    if tonumber(redis.call('ZSCORE', prefix .. tag, product_id) or 'nan') ~= score then
        wrong = wrong + 1
        if repairs then redis.call('ZADD', prefix .. tag, string.format('%.17g', score), product_id) end
    end
end
return wrong
