-- KEYS[1]: <namespace>:core:seen
-- Returns Redis's time in ms; what workers were last seen to do, as words "<kind> <worker> [<pool>] <ms>"; since when
-- they are known, as words "<worker> <ms> <ms> <ms>"; and when the last pause of the lease loop began and ended, or nil.
-- One text is read far sooner than many.
local prefix = string.sub(KEYS[1], 1, -10)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- So long a worker stands in the idle sets after a draw (ms).
local IDLE_LIFE = 60000

local seen = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
local is_noted = {}
for i = 1, #seen, 2 do
  is_noted[string.match(seen[i], '^%a (%S+)') or ''] = true
end

-- Workers of former versions note nothing. Theirs is what follows from a draw: they stand idle, or hold jobs.
local orders = redis.call('HGETALL', prefix .. 'fleet:order')
for i = 1, #orders, 2 do
  local worker, boot = orders[i], string.match(orders[i + 1], '^%d+')
  if boot and not is_noted[worker] then
    local idle = prefix .. 'idle:' .. worker .. '.' .. boot
    local pools = redis.pcall('GET', idle)
    if type(pools) == 'string' then
      local at = string.format('%.0f', now - math.max(0, IDLE_LIFE - redis.call('PTTL', idle)))
      for pool in string.gmatch(pools, '%S+') do
        seen[#seen + 1] = 'd ' .. worker .. ' ' .. pool
        seen[#seen + 1] = at
      end
    end
    if redis.call('EXISTS', prefix .. 'drawn:' .. worker .. '.' .. boot) == 1 then
      seen[#seen + 1] = 'r ' .. worker
      seen[#seen + 1] = string.format('%.0f', now)
    end
  end
end

return {
  string.format('%.0f', now),
  table.concat(seen, ' '),
  table.concat(redis.call('HGETALL', prefix .. 'fleet:since'), ' '),
  redis.call('HGET', prefix .. 'core:lease_tick', 'paused'),
  redis.call('HGET', prefix .. 'core:lease_tick', 'resumed'),
}
