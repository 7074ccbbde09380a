-- A worker that keeps itself free for jobs that must run alone, or apart: it draws nothing while what it runs goes on. What
-- others lose by that is bounded. The decisions are those of tether/scheduling/keeping.py.

local KEEPING = {
  -- One worker of a pool at a time keeps itself free, and so long after its last draw no other (ms).
  LIFE = 30000,
  -- So long do others wait for it at first, and at most (ms); and then they come first for so many times as long.
  FIRST_PATIENCE = 5000,
  MAX_PATIENCE = 300000,
  OTHERS_SHARE = 3,
  -- So long after that it is known how long they waited (ms).
  MEMORY = 3600000,
}

-- What is known of a pool's quarantine: since when jobs wait there; which worker keeps itself free, when it last drew, and
-- for how long others have waited for it; for how long they may; and until when none keeps itself free.
local function read_keeping(pool, now)
  local since, keeper, until_ms, lost, patience, open_until = unpack(apply('HMGET', quarantine_of(pool), 'since', 'worker',
    'until', 'lost', 'patience', 'open'))
  since, until_ms, open_until = whole(since, MAX_INTEGER), whole(until_ms, MAX_INTEGER), whole(open_until, MAX_INTEGER)
  local is_kept = is_word(keeper) and until_ms and until_ms > now and until_ms <= now + KEEPING.LIFE
  local is_known = open_until and open_until + KEEPING.MEMORY > now
  local is_open = open_until and open_until > now and open_until <= now + KEEPING.OTHERS_SHARE * 2 * KEEPING.MAX_PATIENCE
  return {since = since, keeper = is_kept and keeper or nil, drew_at = is_kept and until_ms - KEEPING.LIFE or now,
    lost = is_kept and whole(lost, 2 * KEEPING.MAX_PATIENCE) or 0,
    patience = is_known and whole(patience, KEEPING.MAX_PATIENCE) or KEEPING.FIRST_PATIENCE, open_until = is_open and open_until or 0}
end

local stop_keeping, keep_free
do
  -- Until when a worker keeps itself free for none of its pools: it has just done so for one.
  local function open_of(worker)
    return key('open:' .. worker_of(worker))
  end

  local function is_open(worker, now)
    local open_until = whole(apply('GET', open_of(worker)), MAX_INTEGER)
    return open_until ~= nil and open_until > now and open_until <= now + KEEPING.OTHERS_SHARE * 2 * KEEPING.MAX_PATIENCE
  end

  -- A worker no longer keeps itself free: its turn begins, or it gives up. Others come first then, as they have waited.
  stop_keeping = function(pool, kept, patience, now)
    local open_for = KEEPING.OTHERS_SHARE * kept.lost
    apply('HSET', quarantine_of(pool), 'worker', '', 'lost', '0', 'open', integer(now + open_for),
      'patience', integer(math.min(KEEPING.MAX_PATIENCE, math.max(KEEPING.FIRST_PATIENCE, patience))))
    redis.call('PEXPIRE', quarantine_of(pool), QUARANTINE_LIFE)
    if kept.keeper and open_for > 0 then
      redis.call('SET', open_of(kept.keeper), integer(now + open_for), 'PX', open_for)
    end
  end

  -- A worker draws that keeps itself free, or is about to. do_wait: whether others wait. Returns whether it does.
  keep_free = function(pool, worker, do_wait, now)
    local kept = read_keeping(pool, now)
    if kept.keeper ~= worker then
      kept.lost = 0
    elseif do_wait then
      kept.lost = kept.lost + now - kept.drew_at
    end
    if kept.open_until > 0 or is_open(worker, now) then
      if kept.keeper == worker then
        apply('HSET', quarantine_of(pool), 'worker', '', 'lost', '0')
      end
      return false
    elseif kept.lost >= kept.patience then
      stop_keeping(pool, kept, 2 * kept.patience, now)
      return false
    end
    apply('HSET', quarantine_of(pool), 'worker', worker, 'until', integer(now + KEEPING.LIFE), 'lost', integer(kept.lost))
    redis.call('PEXPIRE', quarantine_of(pool), QUARANTINE_LIFE)
    return true
  end
end
