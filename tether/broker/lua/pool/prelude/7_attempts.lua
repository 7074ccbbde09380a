-- What became of a job's attempts: a log in its hash, which its outcomes take to the database.

-- Notes how a job's attempt ended, once: what has been noted, or was never drawn, is passed over. The hash has the
-- attempt's fence still, and the offset at which it ended.
-- cause: a word. went: 'pool' (it waits there again), 'database' (which decides) or 'end' (it is over). evidence: a
-- small table of what else is known, or nil.
local function log_attempt(id, now, cause, went, evidence)
  -- Ends of attempts that a job's hash keeps, the newest, and size of one of them.
  local MAX_LOGGED, MAX_LOGGED_BYTES = 64, 4096
  local name = job_of(id)
  local dispatch, attempt, draw, pool, run, offset, drawn_at, drawn_offset, log, logged =
    read(name, 'dispatch', 'attempt', 'draw', 'pool', 'run', 'offset', 'drawn_at', 'drawn_offset', 'log', 'logged')
  if not draw or draw == '' or drawn_at == '' then
    return
  end
  local record = {
    dispatch = whole(dispatch, MAX_TOKENS) or 0, attempt = whole(attempt, MAX_TOKENS) or 0, draw_id = draw,
    pool = pool or '', run = whole(run, MAX_RUN) or 0, offset = whole(offset, MAX_TOKENS) or 0,
    started_at = whole(drawn_at, MAX_INTEGER) or 0, start_offset = whole(drawn_offset, MAX_TOKENS) or 0,
    ended_at = now, cause = cause, went = went, evidence = evidence,
  }
  local line = cjson.encode(record)
  if #line > MAX_LOGGED_BYTES then
    record.evidence = nil
    line = cjson.encode(record)
  end
  logged = whole(logged, MAX_INTEGER - 1) or 0
  if logged >= MAX_LOGGED then
    log = string.gsub(log or '', '^[^\n]*\n?', '')
  end
  log = log and log ~= '' and log .. '\n' .. line or line
  redis.call('HSET', name, 'log', log, 'logged', integer(logged + 1), 'drawn_at', '')
end
