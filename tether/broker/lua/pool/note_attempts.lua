-- Notes attempts that ended of one model in one region, for its breaker. Where they are more than are kept, each tenant
-- keeps its newest: none pushes out those of others.
-- ARGV: breaker, how many are kept, how many of a tenant where not all can be, for how long (ms), attempt (JSON)...
-- Returns: how many are kept now.
pass_memory_limit()
local PUSHED = 1000
local name, most, of_tenant, life = ARGV[1], whole(ARGV[2], MAX_SET_ASIDE), whole(ARGV[3], MAX_INTEGER),
  whole(ARGV[4], MAX_LIFE)
if not most or not of_tenant or not life or #name > MAX_NAME_BYTES then
  return refuse('note_attempts: an argument')
end
local noted, names = key('attempts:' .. name), key('core:breakers')

-- The newest of each tenant, the newest first; at most half of what is kept, so that this is done seldom.
local function thinned()
  local all, of_one = redis.call('LRANGE', noted, 0, -1), math.max(1, math.min(of_tenant, most / 2))
  local attempts = {}
  for i = #all, 1, -1 do
    -- Keys are sorted, and quotes in values escaped.
    local tenant = string.match(all[i], '"tenant":"(.-)","v":')
    if tenant then
      attempts[#attempts + 1] = {tenant, all[i]}
    end
  end
  while true do
    local counts, kept = {}, {}
    for _, attempt in ipairs(attempts) do
      local count = (counts[attempt[1]] or 0) + 1
      counts[attempt[1]] = count
      if count <= of_one then
        kept[#kept + 1] = attempt[2]
      end
    end
    if #kept <= most / 2 or of_one <= 1 then
      return kept
    end
    of_one = math.floor(of_one / 2)
  end
end

for i = 5, #ARGV do
  apply('RPUSH', noted, ARGV[i])
end
if apply('LLEN', noted) > most then
  local kept = thinned()
  redis.call('DEL', noted)
  for first = math.min(#kept, math.floor(most / 2)), 1, -PUSHED do
    local page = {}
    for i = first, math.max(1, first - PUSHED + 1), -1 do
      page[#page + 1] = kept[i]
    end
    redis.call('RPUSH', noted, unpack(page))
  end
end
redis.call('PEXPIRE', noted, integer(life))
apply('ZADD', names, now_ms(), name)
return redis.call('LLEN', noted)
