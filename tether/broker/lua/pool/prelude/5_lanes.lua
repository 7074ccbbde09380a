-- Where jobs wait, and what their tenants are charged: the Virtual Token Counter (OSDI 2024). docs/decisions/fairness.md
-- says why.

local FAIR = {
  -- What a token of a prompt and a token of an answer count, as in the paper.
  INPUT_PRICE = 1,
  OUTPUT_PRICE = 2,
  -- Nobody is charged more at once: the counters of others must not vanish beside one.
  MAX_CHARGE = 2 ^ 36,
  -- Once the least counter of a pool and class is greater, all are lowered by it: what is added to them must not vanish.
  LOWER_AT = 2 ^ 36,
  -- No counter that stands in a key is greater.
  MAX_COUNTER = 2 ^ 52,
  -- So long after a tick of the lease loop found a pool's standard jobs late they count as that (ms).
  LATE_LIFE = 5000,
}

-- The counter that a text is; nil where it is none.
local function counter_of(text)
  local number = tonumber(text)
  -- Whatever is compared with what is no number is false.
  if number and number >= 0 and number <= FAIR.MAX_COUNTER then
    return number
  end
end

-- A lane has got a job that was placed then: it ages, and its tenant is among those of the pool. One that returns from
-- idle has the least counter of those who wait at least; where nobody waits, that of who was served last: nobody gets
-- credit for the time away.
local function note_waiting(pool, class, tenant, placed_at)
  local tenants = tenants_of(pool, class)
  if class == 'batch' or class == 'alone.batch' then
    apply('ZADD', key('core:aging'), 'LT', integer(placed_at), pool .. ' ' .. class .. ' ' .. tenant)
  elseif class == 'standard' then
    apply('ZADD', ages_of(pool), 'LT', integer(placed_at), tenant)
  end
  if not apply('ZSCORE', tenants, tenant) then
    local served = served_of(pool, class)
    local own, floor, last = unpack(apply('HMGET', served, 't:' .. tenant, 'floor', 'last'))
    local least = counter_of(redis.call('ZRANGE', tenants, 0, 0, 'WITHSCORES')[2])
    if not least then
      least = math.max(counter_of(floor) or 0, last and counter_of(redis.call('HGET', served, 't:' .. last)) or 0)
    end
    redis.call('ZADD', tenants, math.max(counter_of(own) or 0, least), tenant)
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
    tokens = math.min(tokens, FAIR.MAX_CHARGE)
    local served, field = served_of(pool, priority), 't:' .. tenant
    local own, floor = unpack(apply('HMGET', served, field, 'floor'))
    -- Who has none has as much as the floor.
    redis.call('HSET', served, field, (counter_of(own) or counter_of(floor) or 0) + tokens)
    apply('ZADD', tenants_of(pool, priority), 'XX', 'INCR', tokens, tenant)
  end
end

-- Gives back what a tenant was charged too much, but nothing below the counter that others are served at.
local function give_back(pool, priority, tenant, tokens)
  local served, tenants, field = served_of(pool, priority), tenants_of(pool, priority), 't:' .. tenant
  local own, floor = unpack(apply('HMGET', served, field, 'floor'))
  own, floor = counter_of(own), counter_of(floor) or 0
  if own and own > floor then
    redis.call('HSET', served, field, math.max(own - tokens, floor))
  end
  own = counter_of(apply('ZSCORE', tenants, tenant))
  if own and own > floor then
    redis.call('ZADD', tenants, 'XX', math.max(own - tokens, floor), tenant)
  end
end
