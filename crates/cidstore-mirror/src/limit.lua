-- Counts a request of a client unless too many came within the window: a sliding window of two counters, that of
-- the present window and that of the one before, which counts for as much as of it is left. The clock is that of
-- Redis, so that those of the daemons do not matter. Returns 0, or after how many milliseconds to try again.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local window, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local number = math.floor(now / window)
local into = now - number * window
local had = redis.call('HMGET', KEYS[1], 'window', 'now', 'before')
local count, before = tonumber(had[2]) or 0, tonumber(had[3]) or 0
local age = number - (tonumber(had[1]) or 0)
if age == 1 then
  count, before = 0, count
elseif age ~= 0 then
  count, before = 0, 0
end
if before * (window - into) / window + count + 1 <= most then
  redis.call('HSET', KEYS[1], 'window', number, 'now', count + 1, 'before', before)
  redis.call('PEXPIRE', KEYS[1], 2 * window)
  return 0
end
if count + 1 <= most then
  return math.max(1, math.ceil(window * (1 - (most - 1 - count) / before)) - into)
end
return math.max(1, window - into + math.ceil(window * (1 - (most - 1) / count)))
