-- Takes requests and tokens from tenants' buckets (tether/rate_limits.py tells the rule, which is the same), and gives
-- them back.
-- ARGV, for each group of requests of one tenant: how ('take', 'owe' or 'give'), tenant, requests a minute, tokens a
-- minute (0 is any number), milliseconds' worth of a full bucket, when these were taken (ms, of 'give'), the number of
-- requests, and the tokens of each.
-- Returns, in one text, for each group now (ms), the units that are taken of requests and of tokens, and with 'take' for each request
-- in how many milliseconds it may come by the limit of requests, and by that of tokens: both 0 where it is admitted.
-- bucket:<tenant> is '1 <ms> <units of requests> <units of tokens>', until both buckets are full again. Anything else
-- there is taken for full buckets, and written over.
local UNITS = 60000

local function capacity_of(rate, burst)
  return math.max(rate * burst, UNITS)
end

local function flowed(units, rate, capacity, rested)
  if rate == 0 then
    return 0
  end
  return math.min(math.max(units - rate * rested, 0), capacity)
end

local function time_to_flow(units, rate)
  if rate == 0 or units <= 0 then
    return 0
  end
  return math.ceil(units / rate)
end

-- The units that are taken at a time: of requests, and of tokens.
local function taken_of(bucket, now, requests_rate, tokens_rate, requests_full, tokens_full)
  local text = redis.pcall('GET', bucket)
  if type(text) ~= 'string' then
    return 0, 0
  end
  local at, requests, tokens = string.match(text, '^1 (%d+) (%d+) (%d+)$')
  if not at then
    return 0, 0
  end
  local rested = math.max(now - tonumber(at), 0)
  return flowed(tonumber(requests), requests_rate, requests_full, rested),
    flowed(tonumber(tokens), tokens_rate, tokens_full, rested)
end

local function keep(bucket, now, requests, tokens, requests_rate, tokens_rate)
  local life = math.max(time_to_flow(requests, requests_rate), time_to_flow(tokens, tokens_rate))
  if life == 0 then
    redis.call('DEL', bucket)
  else
    local text = string.format('1 %.0f %.0f %.0f', now, requests, tokens)
    redis.call('SET', bucket, text, 'PX', string.format('%.0f', life))
  end
end

local now, answer, place = now_ms(), {}, 1

local function say(number)
  answer[#answer + 1] = string.format('%.0f', number)
end

-- A full Redis is no reason to let each process count for itself.
pass_memory_limit()
while place <= #ARGV do
  local how, bucket = ARGV[place], key('bucket:' .. ARGV[place + 1])
  local requests_rate, tokens_rate = tonumber(ARGV[place + 2]), tonumber(ARGV[place + 3])
  local burst, since, count = tonumber(ARGV[place + 4]), tonumber(ARGV[place + 5]), tonumber(ARGV[place + 6])
  local requests_full, tokens_full = capacity_of(requests_rate, burst), capacity_of(tokens_rate, burst)
  local requests, tokens = taken_of(bucket, now, requests_rate, tokens_rate, requests_full, tokens_full)
  local request = requests_rate > 0 and UNITS or 0
  local token = tokens_rate > 0 and UNITS or 0
  local first = place + 7
  place = first + count
  local refused, all = {}, 0
  for number = 1, count do
    local cost = tonumber(ARGV[first + number - 1])
    all = all + cost
    if how == 'take' then
      refused[number] = requests + request > requests_full or tokens + cost * token > tokens_full
      if not refused[number] then
        requests, tokens = requests + request, tokens + cost * token
      end
    end
  end
  if how == 'owe' then
    requests = math.min(requests + count * request, requests_full)
    tokens = math.min(tokens + all * token, tokens_full)
  elseif how == 'give' and now >= since then
    requests = math.max(requests - math.max(count * UNITS - requests_rate * (now - since), 0), 0)
    tokens = math.max(tokens - math.max(all * UNITS - tokens_rate * (now - since), 0), 0)
  end
  keep(bucket, now, requests, tokens, requests_rate, tokens_rate)
  say(now)
  say(requests)
  say(tokens)
  if how == 'take' then
    local wanted_requests, wanted_tokens = requests - requests_full, tokens - tokens_full
    for number = 1, count do
      if refused[number] then
        wanted_requests = wanted_requests + UNITS
        wanted_tokens = wanted_tokens + tonumber(ARGV[first + number - 1]) * UNITS
        say(time_to_flow(wanted_requests, requests_rate))
        say(time_to_flow(wanted_tokens, tokens_rate))
      else
        say(0)
        say(0)
      end
    end
  end
end
return table.concat(answer, ' ')
