-- Puts one product's new state, if it is newer than what is stored. Atomic; everything is in one slot.
--
--   {NN} = crc32(product_id) mod 256, two hex digits. A prefix per environment may come before it all.
--
--   tagstream:{NN}:meta                hash   layout ("1"). Without it this shard was never initialised, or
--                                             was emptied: writes are refused, so that a lost store is
--                                             refilled instead of being taken for a new one.
--                                             products, entries: how many there are in this shard
--                                             rebuilding ("1"): it is being refilled, and takes only writes
--                                             that bring their revision
--   tagstream:{NN}:product:<id>        hash   event_version source_offset model_generation image deleted
--                                             tags (JSON) schema_version model_version taxonomy_version
--                                             tagged_at revision updated_at_ms (the store's own clock)
--                                             deleted = "1": a marker without tags, which expires
--   tagstream:{NN}:tag:<group>=<value> zset   product_id -> score, of every product that has this tag now
--
--   tagstream:halted                   hash   reason at_ms. While it exists, every consumer waits
--
-- KEYS  1 meta  2 product
-- ARGV  1 event_version  2 source_offset  3 model_generation  4 image  5 deleted (0|1)  6 tags (JSON)
--       7 schema_version  8 model_version  9 taxonomy_version  10 tagged_at
--       11 product_id  12 what comes before "product:" in KEYS[2]  13 seconds that a marker lives
--       14 the revision of a write that refills the store, else 0
-- Reply "stale" | {"applied", revision} | {"same", field, value, ...}
--
-- Versions are integers below 2^53, so Lua's numbers compare them exactly; they are stored as they came.

local restored = tonumber(ARGV[14])
local layout = redis.call('HGET', KEYS[1], 'layout')
if not layout and restored > 0 and redis.call('HGET', KEYS[1], 'rebuilding') then
    layout = '1'
end
if not layout then
    return redis.error_reply('UNINITIALISED ' .. KEYS[1] .. ' is missing')
elseif layout ~= '1' then
    return redis.error_reply('LAYOUT ' .. KEYS[1] .. ' says layout ' .. layout .. ', this code writes 1')
end

local old = redis.call('HMGET', KEYS[2],
    'event_version', 'source_offset', 'model_generation', 'image', 'deleted', 'tags')
local is_deleted = ARGV[5] == '1'

-- -1, 0 or 1, as the write is older than, equal to or newer than what is stored.
local function compare()
    if not old[1] then return 1 end
    for i = 1, 2 do
        local difference = tonumber(ARGV[i]) - tonumber(old[i])
        if difference ~= 0 then return difference end
    end
    if is_deleted and old[5] == '1' then return 0 end
    local generations = tonumber(ARGV[3]) - tonumber(old[3])
    if generations ~= 0 then return math.max(generations, 0) end
    return (ARGV[4] == 'used' and old[4] ~= 'used') and 1 or 0
end

local order = compare()
if order < 0 then return 'stale' end
if order == 0 then
    local standing = redis.call('HGETALL', KEYS[2])
    table.insert(standing, 1, 'same')
    return standing
end

local prefix, product_id = ARGV[12], ARGV[11]
local scores, entries = {}, 0
for _, tag in ipairs(cjson.decode(ARGV[6])) do
    scores[prefix .. 'tag:' .. tag.group .. '=' .. tag.value] = tag.score
end
if old[6] then
    for _, tag in ipairs(cjson.decode(old[6])) do
        local key = prefix .. 'tag:' .. tag.group .. '=' .. tag.value
        if not scores[key] then entries = entries - redis.call('ZREM', key, product_id) end
    end
end
for key, score in pairs(scores) do
    entries = entries + redis.call('ZADD', key, string.format('%.17g', score), product_id)
end
local products = (is_deleted and 0 or 1) - (old[5] == '0' and 1 or 0)
if products ~= 0 then redis.call('HINCRBY', KEYS[1], 'products', products) end
if entries ~= 0 then redis.call('HINCRBY', KEYS[1], 'entries', entries) end

local now = redis.call('TIME')
redis.call('HSET', KEYS[2],
    'event_version', ARGV[1], 'source_offset', ARGV[2], 'model_generation', ARGV[3],
    'image', ARGV[4], 'deleted', ARGV[5], 'tags', ARGV[6], 'schema_version', ARGV[7],
    'model_version', ARGV[8], 'taxonomy_version', ARGV[9], 'tagged_at', ARGV[10],
    'updated_at_ms', string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)))
if is_deleted then
    redis.call('EXPIRE', KEYS[2], ARGV[13])
else
    redis.call('PERSIST', KEYS[2])
end
if restored > 0 then
    local revision = math.max(restored, tonumber(redis.call('HGET', KEYS[2], 'revision') or '0'))
    redis.call('HSET', KEYS[2], 'revision', string.format('%.0f', revision))
    return {'applied', revision}
end
return {'applied', redis.call('HINCRBY', KEYS[2], 'revision', 1)}
