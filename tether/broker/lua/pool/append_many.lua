-- Adds tokens to the streams of running attempts, and renews their leases.
-- ARGV: epoch, lease (ms), then for each: job, dispatch, attempt, draw, run, offset, count, kind, data
-- kind: 'delta'; 'restarted' opens a higher run at the offset given, with no tokens.
-- Returns: {'epoch'} or {'ok', code, offset, code, offset...}. Codes: 'ok'; 'cancelled', 'expired' (added, and the
-- attempt shall end so); 'fenced'; 'offset' (nothing added: the stream stands at that offset); 'unknown'; 'invalid' (no
-- attempt of this job can write this); 'unreadable' (what Redis holds of the job: it is placed anew).
pass_memory_limit()
if is_stale(ARGV[1]) then
  return {'epoch'}
end
local lease = whole(ARGV[2], MAX_LEASE)
if not lease or lease == 0 or (#ARGV - 2) % 9 ~= 0 then
  return refuse('append_many: a lease of up to a day in ms and nine arguments for each attempt are needed')
end
local now = now_ms()
local until_ms = now + lease
local answer = {'ok'}
local charges, totals, renewed, renewing = {}, {}, {}, nil
-- Arguments of one command.
local MAX_AT_ONCE = 1000

local function renew()
  if #renewed > 0 then
    apply('ZADD', leases, unpack(renewed))
    renewed = {}
  end
end

local is_of_revoked = revocation_check()

for i = 3, #ARGV, 9 do
  local id, dispatch, attempt, draw, run, offset, made, kind, data = unpack(ARGV, i, i + 8)
  run, offset, made = whole(run, MAX_RUN), whole(offset, MAX_TOKENS), whole(made, MAX_TOKENS)
  local name = job_of(id)
  local job_fence, state, job_run, job_offset, n, cancel, deadline, pool, priority, tenant, weight, max_tokens =
    read(name, 'fence', 'state', 'run', 'offset', 'n', 'cancel', 'deadline', 'pool', 'priority', 'tenant', 'weight',
      'max_tokens')
  job_run, job_offset, n = whole(job_run, MAX_RUN), whole(job_offset, MAX_TOKENS), whole(n, MAX_INTEGER - 1)
  local end_code = end_asked_for(cancel, deadline, now)
  local code = 'invalid'
  if not (run and offset and made) then
    code = 'invalid'
  elseif job_fence == false then
    code = 'unknown'
  elseif not job_fence then
    code = 'unreadable'
  elseif job_fence ~= fence(dispatch, attempt, draw) then
    code = 'fenced'
  elseif state ~= RUNNING or is_of_revoked(draw) then
    code = 'fenced'
  else
    weight = share(weight)
    if not (job_run and job_offset and n and end_code and weight and pool and priority and tenant) then
      code = 'unreadable'
    elseif kind == 'delta' then
      if job_run ~= run or job_offset ~= offset then
        code = 'offset'
      elseif offset + made <= last_offset(max_tokens) and has_tokens(data, made) then
        code = 'ok'
      end
    elseif kind == 'restarted' then
      local highest = math.max(job_run, (tonumber(dispatch) - 1) * RUNS_PER_DISPATCH) + RUNS_PER_DISPATCH
      if run <= job_run then
        code = 'offset'
      elseif run <= highest and offset <= job_offset and made == 0 and is_json(data, MAX_EVENT_BYTES) then
        code = 'ok'
      end
    end
  end
  local stands_at = integer(code == 'ok' and offset + made or job_offset or 0)
  if code == 'ok' then
    n = integer(n + 1)
    local position = run == 0 and stands_at or integer(run * RUN_STEP + offset + made)
    -- The first write: where the stream does not take it, nothing was written.
    if not say_at(id, position .. '-' .. n, kind, data) then
      code, stands_at = 'unreadable', integer(job_offset)
    end
  end
  if code == 'ok' then
    if run == job_run then
      redis.call('HSET', name, 'offset', stands_at, 'n', n)
    else
      redis.call('HSET', name, 'offset', stands_at, 'n', n, 'run', integer(run))
    end
    renewed[#renewed + 1] = until_ms
    renewed[#renewed + 1] = 'j ' .. id
    renewing = draw
    if #renewed >= MAX_AT_ONCE then
      renew()
    end
    if made > 0 then
      local account = pool .. ' ' .. priority .. ' ' .. tenant
      totals[pool] = totals[pool] or {}
      totals[pool][priority] = (totals[pool][priority] or 0) + made * FAIR.OUTPUT_PRICE
      charges[account] = (charges[account] or 0) + made * FAIR.OUTPUT_PRICE / weight
    end
    code = end_code
  elseif code == 'unreadable' then
    give_up(id, now, 'append_many')
  end
  answer[#answer + 1] = code
  answer[#answer + 1] = stands_at
end
renew()
if renewing then
  note_renewal(renewing, now)
end
for account, tokens in pairs(charges) do
  local pool, priority, tenant = string.match(account, '^(%S+) (%S+) (.*)$')
  if pool then
    charge(pool, priority, tenant, tokens)
  end
end
if next(totals) then
  note_classes(worker_of(renewing), totals, now)
end
return answer
