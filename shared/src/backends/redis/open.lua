-- Makes a claim the writer of a run and tells the tail.
-- KEYS: events, meta. ARGV: epoch, last archived number, time to live in milliseconds.
-- Answers {0, tail}, or {1, 0} for a stale epoch.
local stored = redis.call('HGET', KEYS[2], 'epoch')
local epoch = tonumber(ARGV[1])
if stored and tonumber(stored) > epoch then
    return {1, 0}
end
-- The stream itself tells how far it is: it may have been lost without its meta.
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local tail = newest and tonumber(string.match(newest[1], '^%d+')) or 0
local archived = tonumber(ARGV[2])
if tail < archived then
    -- What lies between is in the archive.
    tail = archived
end
redis.call('HSET', KEYS[2], 'epoch', epoch, 'tail', tail)
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return {0, tail}
