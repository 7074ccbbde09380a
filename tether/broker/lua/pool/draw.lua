-- Gives a worker up to `count` jobs that wait in its pools: by priority, pools in turn, least served tenant. Drawing is
-- beginning. A worker that gets fewer stands in the idle sets from then on.
-- One draw takes `count` jobs, passes over MAX_SKIPPED and throws away MAX_DISCARDED entries at most. No lane costs
-- more than MAX_DISCARDED_OF_LANE of these before all others had their turn, and where they do not suffice, the
-- worker's next draw goes on where this one stopped: after one draw for each 32 lanes it has looked into all.
-- It goes on in the files of the folder `draw`.
-- ARGV: epoch, worker, count, first draw number, lease (ms), again ('1': the last draw's answer may be lost),
-- busy ('1': the worker runs other jobs), process (a name that no other process has), comes back ('1': it was outranked
-- when it drew last), how many fields, that many names of fields of a job's hash, pools..., limits (may be missing; JSON:
-- {"others": so many jobs of any tenant may be drawn, "left": {tenant: so many of this one}}, each may be missing. Who has
-- none left is passed over, and keeps its place and its counter: docs/decisions/quota-guard.md)
-- Returns: {'epoch'}, {'revoked'}, {'outranked', boot counter, '1' where nobody draws with that any more and this worker
-- may count on from there}, or {'ok', ms after which to draw again (0: when woken), drawn...}, and behind these, where limits
-- were given, how many tenants were passed over for them, as an integer. Each drawn is
-- {job, dispatch, attempt, draw, run, offset, alone, lossy, deaths, {the fields; nil where the hash has none},
-- {data of the deltas that former attempts wrote}}.
if is_stale(ARGV[1]) then
  return {'epoch'}
end
local FIRST_FIELD = 11
local limits
if string.sub(ARGV[#ARGV] or '', 1, 1) == '{' then
  limits = read_limits(table.remove(ARGV))
  if not limits then
    return refuse('draw: the limits are not JSON of whole numbers up to 1024, "others" from 1 on, "left" of 8192 tenants')
  end
end
local worker, count, number, lease, again, busy, process, comes_back = unpack(ARGV, 2, 9)
local FIRST_POOL
do
  -- So many jobs are drawn at once, and so many fields told of each.
  local MAX_COUNT = 1024
  local MAX_FIELDS = 64
  count, number, lease, busy = whole(count, MAX_COUNT), whole(number, MAX_INTEGER), whole(lease, MAX_LEASE), busy == '1'
  local field_count = whole(ARGV[10], math.min(#ARGV - FIRST_FIELD + 1, MAX_FIELDS))
  if not (count and number and lease and lease > 0 and field_count and field_count > 0)
      or not is_word(worker) or not is_word(process) then
    return refuse('draw: a worker, up to ' .. MAX_COUNT .. ' jobs, a number, a lease of up to a day in ms, a process and 1 to '
      .. MAX_FIELDS .. ' names of fields are needed')
  end
  FIRST_POOL = FIRST_FIELD + field_count
end
if #ARGV - FIRST_POOL + 1 > MAX_ASKED_POOLS then
  return refuse('draw: ' .. #ARGV - FIRST_POOL + 1 .. ' pools are named, and one draw may name ' .. MAX_ASKED_POOLS)
end
for i = FIRST_POOL, #ARGV do
  if not is_word(ARGV[i]) then
    return refuse('draw: ' .. i .. ' is no name of a pool')
  end
end
-- A worker had rather not get what it lost a moment ago: so many heads a draw are passed over for that.
local MAX_SKIPPED = 16
-- Entries of jobs that do not wait there any more.
local MAX_DISCARDED = 256
local MAX_DISCARDED_OF_LANE = 8

-- Where Redis is at its memory limit, a worker that runs something draws no more: what runs needs the memory. One that
-- runs nothing draws, so that there is always something that can end.
local is_kept_short = busy and again ~= '1' and count > 0 and is_at_memory_limit()
local now = now_ms()
pass_memory_limit()
local answer = {'ok', 0}
local skipped, discarded = 0, 0
local is_full = false

do
  local has_lost_trust = is_revoked(worker)

  local answer_of_lower, is_twin
  do
    -- Of the processes that have a worker's key one draws: that of the greatest boot counter, of equal ones the first, for as
    -- long as it draws or beats. Returns what the others are answered, and whether the one that draws has the same boot id.
    local function outranked()
      local boot = whole(string.match(worker, '%.(%d+)$'), MAX_INTEGER)
      if not boot then
        return nil
      end
      local lead = lead_of(worker)
      local lead_boot, lead_process = string.match(apply('GET', lead) or '', '^(%d+) (%S+)$')
      lead_boot = whole(lead_boot, MAX_INTEGER)
      if lead_boot == boot and lead_process == process then
        if count == 0 then
          redis.call('DEL', lead)
          return nil
        end
      elseif lead_boot and lead_boot >= boot then
        if count > 0 then
          apply('ZADD', seen_doing(), now, 'c ' .. worker_of(worker))
        end
        return {'outranked', integer(lead_boot), '0'}, lead_boot == boot
      elseif not lead_boot then
        -- Announcements with lower numbers count no more, whoever made them.
        local announced = string.match(apply('HGET', key('fleet:order'), worker_of(worker)) or '', '^%d+')
        announced = whole(announced, MAX_INTEGER - 1) or 0
        if announced > boot or comes_back == '1' then
          return {'outranked', integer(math.max(announced, boot)), '1'}
        end
      end
      if count > 0 then
        redis.call('SET', lead, integer(boot) .. ' ' .. process, 'PX', WAKING.LEAD_LIFE)
      end
    end

    if not has_lost_trust then
      answer_of_lower, is_twin = outranked()
    end
  end
  if is_twin then
    -- What stands under that boot id, as that it is idle or was woken, is of the one that draws.
    return answer_of_lower
  end
  -- It is noted whatever the worker is given.
  if count > 0 and not has_lost_trust and not answer_of_lower and #ARGV >= FIRST_POOL then
    note_asking(worker, {unpack(ARGV, FIRST_POOL)}, now)
  end
  if is_kept_short and not has_lost_trust and not answer_of_lower then
    local FULL_PAUSE = 500
    return {'ok', FULL_PAUSE}
  end

  if apply('ZREM', leases, 'w ' .. worker) == 1 then
    local pool, will_look = apply('HGET', key('core:woken'), worker), false
    apply('HDEL', key('core:woken'), worker)
    if limits then
      limits.woken_for = pool
    end
    for i = FIRST_POOL, #ARGV do
      will_look = will_look or ARGV[i] == pool
    end
    if pool and (has_lost_trust or answer_of_lower or count == 0 or not will_look) then
      leave_idle(worker)
      wake_one(pool, now, worker)
    end
  end
  if has_lost_trust or answer_of_lower then
    leave_idle(worker)
    return answer_of_lower or {'revoked'}
  end
end

-- Who draws lives: what was taken from it was not lost by a death, whether it knew of it or not.
redis.call('DEL', given_up_by(worker))

local function soon(ms)
  if answer[2] == 0 or ms < answer[2] then
    answer[2] = math.max(1, ms)
  end
end

-- Adds a job to the answer, with the tokens that former attempts made.
local function tell(id, dispatch, attempt, draw, run, offset, alone, lossy, deaths, fields)
  local made = {}
  if offset > 0 then
    for _, entry in ipairs(apply('XRANGE', stream_of(id), integer(run * RUN_STEP), '+')) do
      if entry[2][2] == 'delta' then
        made[#made + 1] = entry[2][4]
      end
    end
  end
  answer[#answer + 1] = {id, integer(dispatch), integer(attempt), draw, integer(run), integer(offset), alone, lossy,
    integer(deaths), fields, made}
  is_full = is_full or alone == '1'
end

if again == '1' then
  local function tell_again(id)
    local name = job_of(id)
    local state, dispatch, attempt, draw, run, offset, alone, lossy, deaths, tenant =
      read(name, 'state', 'dispatch', 'attempt', 'draw', 'run', 'offset', 'alone', 'lossy', 'deaths', 'tenant')
    dispatch, attempt, run, offset, deaths = whole(dispatch, MAX_TOKENS), whole(attempt, MAX_TOKENS), whole(run, MAX_RUN),
      whole(offset, MAX_TOKENS), whole(deaths, MAX_TOKENS)
    if state ~= RUNNING or not (dispatch and attempt and run and offset and deaths) then
      apply('HDEL', drawn_of(worker), id)
      return
    end
    apply('ZADD', leases, now + lease, 'j ' .. id)
    if limits and tenant then
      limits.take(tenant)
    end
    tell(id, dispatch, attempt, draw, run, offset, alone, lossy, deaths,
      redis.call('HMGET', name, unpack(ARGV, FIRST_FIELD, FIRST_POOL - 1)))
  end

  local drawn = apply('HGETALL', drawn_of(worker))
  local newest = number
  for i = 1, #drawn, 2 do
    local its_number = whole(drawn[i + 1], MAX_INTEGER)
    if its_number and its_number >= number then
      tell_again(drawn[i])
      newest = math.max(newest, its_number + 1)
    end
  end
  number = newest
end
