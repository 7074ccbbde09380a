-- Where jobs wait, and what their tenants are charged.

-- A lane has got a job that was placed then: it ages, and its tenant is among those of the pool. One that returns from
-- idle gets no credit for the time away (Virtual Token Counter, OSDI 2024).
local function note_waiting(pool, class, tenant, placed_at)
  local tenants = tenants_of(pool, class)
  if class == 'batch' or class == 'alone.batch' then
    apply('ZADD', key('core:aging'), 'LT', integer(placed_at), pool .. ' ' .. class .. ' ' .. tenant)
  end
  if not apply('ZSCORE', tenants, tenant) then
    local served = apply('HMGET', served_of(pool, class), 't:' .. tenant, 'floor')
    local counter = tonumber(served[1]) or 0
    local least = redis.call('ZRANGE', tenants, 0, 0, 'WITHSCORES')
    local floor = tonumber(least[2]) or tonumber(served[2]) or 0
    -- Whatever is compared with what is no number is false: such a counter begins anew.
    redis.call('ZADD', tenants, counter > floor and counter or floor == floor and floor or 0, tenant)
    apply('SADD', key('core:pools'), pool)
  end
end

-- Lets a job wait in a lane of its pool: at the tenant's end, or at its head where it was there before what waits.
local function let_wait(id, ticket, pool, class, tenant, placed_at, to_head)
  apply(to_head and 'LPUSH' or 'RPUSH', tenants_of(pool, class) .. ':' .. tenant, id .. ' ' .. ticket)
  note_waiting(pool, class, tenant, placed_at)
end

-- How long it is remembered whose turn it was in a quarantine that nobody uses (ms).
local QUARANTINE_LIFE = 86400000

-- Jobs of a pool wait that must run alone.
local function note_alone(pool, now)
  if apply('SADD', key('core:alone'), pool) == 1 then
    apply('HSET', quarantine_of(pool), 'since', integer(now))
    redis.call('PEXPIRE', quarantine_of(pool), QUARANTINE_LIFE)
  end
end

local function let_wait_alone(id, ticket, pool, priority, tenant, placed_at, to_head, now)
  note_alone(pool, now)
  let_wait(id, ticket, pool, alone_class(priority), tenant, placed_at, to_head)
end

local function charge(pool, priority, tenant, tokens)
  if tokens > 0 then
    local served = served_of(pool, priority)
    if tonumber(apply('HINCRBYFLOAT', served, 't:' .. tenant, tokens)) == tokens then
      -- It had no counter, which is as much as the floor.
      apply('HINCRBYFLOAT', served, 't:' .. tenant, tonumber(redis.call('HGET', served, 'floor') or '0') or 0)
    end
    apply('ZADD', tenants_of(pool, priority), 'XX', 'INCR', tokens, tenant)
  end
end
