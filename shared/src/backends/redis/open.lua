-- Makes a claim the writer of a run and tells the tail.
-- KEYS: meta. ARGV: epoch, last archived number, time to live in milliseconds.
-- Answers {0, tail}, or {1, 0} for a stale epoch.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'tail')
local epoch = tonumber(ARGV[1])
if meta[1] and tonumber(meta[1]) > epoch then
    return {1, 0}
end
local tail = tonumber(meta[2] or '0')
local archived = tonumber(ARGV[2])
if tail < archived then
    -- What lies between is in the archive.
    tail = archived
end
redis.call('HSET', KEYS[1], 'epoch', epoch, 'tail', tail)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {0, tail}
