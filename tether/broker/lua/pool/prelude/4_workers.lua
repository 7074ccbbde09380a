-- What is known of workers: whom the fleet trusts, what each was seen to do, who is idle and is woken.

local WAKING = {
  -- A woken worker that does not draw for so long is taken out of the idle sets, and the next is woken (ms).
  WAKE_LIFE = 500,
  -- Life of a bell that nobody listens to (ms).
  BELL_LIFE = 60000,
  -- So many idle workers are looked at for one that lives.
  MAX_LOOKED_AT = 8,
  -- For so long a process has the lead among those with one key after it last drew or beat (ms).
  LEAD_LIFE = 15000,
}

-- Whether the key of a worker, by its boot id or one of its draws, was revoked.
local function is_revoked(worker)
  return apply('SISMEMBER', key('core:revoked'), string.match(worker, '^[^.]*')) == 1
end

-- The same for many draws, most of one worker: each worker is asked for once.
local function revocation_check()
  local known = {}
  return function(draw)
    local worker = string.match(draw, '^[^.]*')
    if known[worker] == nil then
      known[worker] = is_revoked(worker)
    end
    return known[worker]
  end
end

-- What a worker was last seen to do, by Redis's clock: who places jobs believes this, and not what a worker announces.
local function seen_doing()
  return key('core:seen')
end

-- The worker of a boot id: what one of its lives has done counts for the next.
local function worker_of(boot_id)
  return string.match(boot_id, '^[^.:]*')
end

-- That a worker asks these pools for jobs is noted. Of it one text is kept, which none can make long: "<ms> <pool>
-- <pool>...", and behind a tab each the same of pools that it asked before and not now.
local function note_asking(boot_id, pools, now)
  local worker, noted = worker_of(boot_id), key('core:asked')
  local last = math.min(#pools, MAX_ASKED_POOLS)
  local asked = table.concat(pools, ' ', 1, last)
  local former = apply('HGET', noted, worker) or ''
  local text = integer(now) .. ' ' .. asked
  local formerly_asked, older = string.match(former, '^%d+ ([^\t]*)(.*)$')
  if formerly_asked == asked then
    text = text .. older
  else
    local is_noted, count = {}, last
    for i = 1, last do
      is_noted[pools[i]] = true
    end
    for at, its_pools in string.gmatch(former, '(%d+) ([^\t]*)') do
      local kept = {}
      for pool in string.gmatch(its_pools, '%S+') do
        if count < MAX_ASKED_POOLS and not is_noted[pool] then
          is_noted[pool], count = true, count + 1
          kept[#kept + 1] = pool
        end
      end
      if #kept > 0 then
        text = text .. '\t' .. at .. ' ' .. table.concat(kept, ' ')
      end
    end
  end
  apply('HSET', noted, worker, text)
end

-- Which of the processes with one key draws.
local function lead_of(boot_id)
  return key('lead:' .. worker_of(boot_id))
end

-- It works: it renewed the lease of the attempt of this draw.
local function note_renewal(draw, now)
  apply('ZADD', seen_doing(), now, 'r ' .. worker_of(draw))
end

-- Takes a worker out of all idle sets that it stands in.
local function leave_idle(worker)
  local standing = key('idle:' .. worker)
  local pools = apply('GET', standing)
  if pools then
    -- Behind them, in a line of its own, stands who is passed over.
    for pool in string.gmatch(string.match(pools, '^[^\n]*'), '%S+') do
      apply('SREM', idle_of(pool), worker)
    end
    redis.call('DEL', standing)
  end
end

local function ring(worker, pool, now)
  leave_idle(worker)
  apply('SREM', idle_of(pool), worker)
  local bell = key('wake:' .. worker)
  apply('RPUSH', bell, 'draw')
  redis.call('PEXPIRE', bell, WAKING.BELL_LIFE)
  apply('ZADD', leases, now + WAKING.WAKE_LIFE, 'w ' .. worker)
  apply('HSET', key('core:woken'), worker, pool)
end

-- Wakes one idle worker of the pool: another than `avoid`, and than those that failed the job, where there is one. Those
-- that are held, and those that pass the tenant over, come by themselves.
local function wake_one(pool, now, avoid, tenant, failed_on)
  -- Whether a worker with this note takes no job of the tenant now.
  local function does_pass_over(standing)
    local note = tenant and string.match(standing, '\n(.*)')
    local is_read, names = pcall(cjson.decode, note or '')
    return is_read and type(names) == 'table' and names[tenant] ~= nil
  end

  local idle, last = idle_of(pool), nil
  -- Each of them once; asked for several, Redis answers a small set in its own order, so that one says where to begin.
  local first, found = apply('SRANDMEMBER', idle), apply('SRANDMEMBER', idle, WAKING.MAX_LOOKED_AT)
  local at = 0
  for i, worker in ipairs(found) do
    at = worker == first and i - 1 or at
  end
  for i = 0, #found - 1 do
    local worker = found[(at + i) % #found + 1]
    local standing = apply('GET', key('idle:' .. worker))
    if not standing then
      redis.call('SREM', idle, worker)
    elseif not does_pass_over(standing) and would_get(worker_of(worker), pool, tenant, now) then
      if worker ~= avoid and not is_listed(failed_on, worker_of(worker)) then
        return ring(worker, pool, now)
      end
      last = worker
    end
  end
  if last then
    ring(last, pool, now)
  end
end

local function wake_all(pool, now)
  for _, worker in ipairs(apply('SMEMBERS', idle_of(pool))) do
    ring(worker, pool, now)
  end
end
