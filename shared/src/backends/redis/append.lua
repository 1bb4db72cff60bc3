-- Appends a batch: all or nothing, in its place, by the present writer only.
-- KEYS: events, meta. ARGV: channel, epoch, first number, time to live in milliseconds, payload ...
-- Answers {0, tail}, {1, 0} for a stale epoch, {2, tail} for a wrong place.
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'tail')
if not meta[1] then
    return {2, 0}
end
local epoch = tonumber(ARGV[2])
if tonumber(meta[1]) > epoch then
    return {1, 0}
end
if tonumber(meta[1]) < epoch then
    -- The claim was never opened here, or what opened it was lost.
    return {2, 0}
end
local tail = tonumber(meta[2])
local first = tonumber(ARGV[3])
local count = #ARGV - 4
if first + count - 1 <= tail then
    -- A repeat after a lost answer is fine if it is the same.
    local have = redis.call('XRANGE', KEYS[1], string.format('%d-0', first), string.format('%d-0', first + count - 1))
    if #have ~= count then
        return {2, tail}
    end
    for i = 1, count do
        if have[i][2][2] ~= ARGV[4 + i] then
            return {2, tail}
        end
    end
    return {0, tail}
end
if first ~= tail + 1 then
    return {2, tail}
end
local push = {struct.pack('>I8', first)}
for i = 1, count do
    local payload = ARGV[4 + i]
    redis.call('XADD', KEYS[1], string.format('%d-0', first + i - 1), 'f', payload)
    push[i + 1] = string.sub(payload, 1, 1) .. struct.pack('>I4', #payload - 1) .. string.sub(payload, 2)
end
tail = first + count - 1
redis.call('HSET', KEYS[2], 'tail', tail)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('PUBLISH', ARGV[1], table.concat(push))
return {0, tail}
