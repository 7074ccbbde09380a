-- Notes which of its pools a worker has loaded, and says which it should load. Those that have loaded a pool draw from
-- it; another loads it only where work waits and none of these is free, and one worker at a time does.
-- ARGV: worker, life of what is noted (ms), then pairs: a pool, and what the worker is for it:
--   'warm': it draws from it               'loading': it is loading it          'slow': the same, for long now
--   'cold': it could load it               'asked': the same, and it was told 'again' the last time
--   'failing': it has just failed to       'paused': it has failed to, and tries again later
--   'away': it takes no jobs
-- Returns: for each pool 'load', 'again' (ask again soon), 'tell' (work waits, and nobody else takes it) or 'none'
pass_memory_limit()
-- Who loads says so all the time; where it does not for so long, another may (ms).
local LOADER_LIFE = 5000
-- Of who draws or renews a lease, and says nothing of its models, so long is believed that it goes on (ms).
local SILENT_LIFE = 15000
-- So many workers are looked at for that.
local MAX_WORKERS = 2000
-- No longer is it believed that one has loaded a pool, unless it says so again (ms).
local MAX_WARM_LIFE = 60000
local STATES = {warm = true, loading = true, slow = true, away = true, cold = true, asked = true, failing = true,
  paused = true}
-- Jobs that must run alone wait in classes of their own.
local CLASSES = {'interactive', 'standard', 'batch', 'alone.interactive', 'alone.standard', 'alone.batch'}
local worker, life = ARGV[1], whole(ARGV[2], MAX_WARM_LIFE)
if not is_word(worker) or not life or life == 0 or #ARGV % 2 ~= 0 then
  return refuse('demand: a worker, a life of up to a minute in ms and pairs of pools and states are needed')
elseif #ARGV > 2 + 2 * MAX_ASKED_POOLS then
  return refuse('demand: ' .. #ARGV / 2 - 1 .. ' pools are named, and ' .. MAX_ASKED_POOLS .. ' may be')
end
for i = 3, #ARGV, 2 do
  if not is_word(ARGV[i]) or not STATES[ARGV[i + 1]] then
    return refuse('demand: ' .. i .. ' is no name of a pool with a state')
  end
end

local function has_work(pool)
  -- Nobody draws from a pool that an operator has paused.
  if apply('SISMEMBER', key('core:pools'), pool) == 0 or apply('SISMEMBER', key('core:paused'), pool) == 1 then
    return false
  end
  for _, class in ipairs(CLASSES) do
    if apply('ZCARD', tenants_of(pool, class)) > 0 then
      return true
    end
  end
  return false
end

-- Whether another worker waits for jobs of this pool.
local function has_idle(pool)
  for _, other in ipairs(apply('SRANDMEMBER', idle_of(pool), WAKING.MAX_LOOKED_AT)) do
    if other ~= worker and redis.call('EXISTS', key('idle:' .. other)) == 1 then
      return true
    end
  end
  return false
end

local now = now_ms()

-- Whether a worker draws or renews leases, and says nothing of its models, since it is of another make.
local function is_silent(other, asked_at)
  local reported = tonumber(apply('ZSCORE', seen_doing(), 'd ' .. other) or 0)
  if reported > now - SILENT_LIFE then
    return false
  end
  local renewed = tonumber(apply('ZSCORE', seen_doing(), 'r ' .. other) or 0)
  return math.max(asked_at, renewed) > now - SILENT_LIFE and not is_revoked(other)
end

-- Whether such a worker has asked this pool for jobs: it takes them when it has a free slot.
local function asks_in_silence(other, notes, pool)
  -- First what is cheap: of most this is all.
  if not string.find(notes, pool, 1, true) or other == worker_of(worker) then
    return false
  end
  local newest = whole(string.match(notes, '^%d+'), MAX_INTEGER) or 0
  if not is_silent(other, newest) then
    return false
  end
  for at, its_pools in string.gmatch(notes, '(%d+) ([^\t]*)') do
    at = whole(at, MAX_INTEGER) or 0
    if (at == newest or at > now - SILENT_LIFE) and string.find(' ' .. its_pools .. ' ', ' ' .. pool .. ' ', 1, true) then
      return true
    end
  end
  return false
end

-- Workers, and what is noted of the pools that they ask: read once, when needed.
local asked
local function is_asked_in_silence(pool)
  if not asked then
    asked = {}
    local cursor = '0'
    repeat
      local page = apply('HSCAN', key('core:asked'), cursor, 'COUNT', 500)
      cursor = page[1]
      for _, text in ipairs(page[2]) do
        asked[#asked + 1] = text
      end
    until cursor == '0' or #asked >= 2 * MAX_WORKERS
  end
  for i = 1, #asked, 2 do
    if asks_in_silence(asked[i], asked[i + 1], pool) then
      return true
    end
  end
  return false
end

local is_untrusted = is_revoked(worker)
if not is_untrusted then
  apply('ZADD', seen_doing(), now, 'd ' .. worker_of(worker))
end
local answer, could_load, shall_draw = {}, {}, false
for i = 3, #ARGV, 2 do
  local pool, state = ARGV[i], is_untrusted and 'away' or ARGV[i + 1]
  local warm, loader = key('pool:' .. pool .. ':warm'), key('pool:' .. pool .. ':loader')
  local slow, advice = key('pool:' .. pool .. ':slow'), 'none'
  if state == 'warm' then
    local is_new = apply('ZADD', warm, now + life, worker) == 1
    redis.call('PEXPIRE', warm, life)
    shall_draw = shall_draw or is_new
  else
    apply('ZREM', warm, worker)
  end
  if state ~= 'warm' and state ~= 'away' then
    could_load[#could_load + 1] = pool
  end
  if state == 'slow' then
    redis.call('SET', slow, worker, 'PX', LOADER_LIFE)
  end
  for _, name in ipairs({loader, slow}) do
    -- Where Redis's clock was set back, keys live longer by as much.
    if redis.call('PTTL', name) > LOADER_LIFE then
      redis.call('DEL', name)
    end
  end
  local loading = apply('GET', loader)
  if state == 'loading' and (not loading or loading == worker) then
    redis.call('SET', loader, worker, 'PX', LOADER_LIFE)
  elseif loading == worker then
    redis.call('DEL', loader)
    loading = false
  end
  if (state == 'cold' or state == 'asked' or state == 'failing') and not loading and has_work(pool) then
    apply('ZREMRANGEBYSCORE', warm, '-inf', now)
    apply('ZREMRANGEBYSCORE', warm, '(' .. integer(now + MAX_WARM_LIFE), '+inf')
    local is_served = apply('ZCARD', warm) > 0
    if state == 'failing' then
      -- Workers of other makes say nothing here, and draw.
      if not is_served and not has_idle(pool) and redis.call('EXISTS', slow) == 0 and not is_asked_in_silence(pool) then
        advice, shall_draw = 'tell', true
      end
    elseif not has_idle(pool) then
      -- One that draws right now stands in no idle set.
      advice = is_served and state == 'cold' and 'again' or 'load'
    end
    if advice == 'load' then
      redis.call('SET', loader, worker, 'PX', LOADER_LIFE)
    end
  end
  answer[#answer + 1] = advice
end
if #could_load > 0 then
  -- It lives, though it draws only from what it has loaded.
  note_asking(worker, could_load, now)
end
if shall_draw then
  -- It may wait for other pools' jobs.
  local bell = key('wake:' .. worker)
  apply('RPUSH', bell, 'draw')
  redis.call('PEXPIRE', bell, WAKING.BELL_LIFE)
end
return answer
