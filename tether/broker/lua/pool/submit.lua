-- A job that a task asks for while it runs, on behalf of the tenant of the job that it runs as.
-- ARGV: epoch, job, dispatch, attempt, draw, token, request (JSON)
-- Returns: {code}. Codes: 'ok'; 'epoch', 'fenced', 'unknown', 'unreadable', 'invalid': nothing was written.
if is_stale(ARGV[1]) then
  return {'epoch'}
end
local _, id, dispatch, attempt, draw, token, request = unpack(ARGV, 1, 7)
if #ARGV ~= 7 or not is_name(id) or not is_name(token) or #request > MAX_FIELD_BYTES then
  return {'invalid'}
end
local job_fence, state, tenant, worker = read(job_of(id), 'fence', 'state', 'tenant', 'worker')
if job_fence == false then
  return {'unknown'}
elseif not job_fence then
  return {'unreadable'}
elseif job_fence ~= fence(dispatch, attempt, draw) or state ~= RUNNING or is_revoked(draw) then
  return {'fenced'}
elseif not (is_name(tenant) and is_name(worker)) then
  return {'unreadable'}
end
apply('XADD', key('core:submits'), '*', 'v', VERSION, 'token', token, 'request', request, 'worker', worker,
  'job', id, 'tenant', tenant)
return {'ok'}
