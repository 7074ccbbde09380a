-- What a script accepts, and what it believes of a hash. Redis rolls nothing back: all is checked before the first
-- write.
-- Greatest whole number that a Lua number holds exactly.
local MAX_INTEGER = 9007199254740991
-- Greatest number of tokens, of a prompt or of an answer: what a column of the database holds.
local MAX_TOKENS = 2147483647
-- Positions of greater runs are no whole numbers any more.
local MAX_RUN = 2097151
-- Runs that the attempts of one dispatch can open before they reach those of the next.
local RUNS_PER_DISPATCH = 256
-- Size of one event's data, of the reason why an attempt failed, and of anything else that a job's hash keeps.
local MAX_EVENT_BYTES = 1048576
local MAX_ERROR_BYTES = 65536
local MAX_FIELD_BYTES = 67108864
local MAX_NAME_BYTES = 512
-- Longest life of what has ended (ms): ten years.
local MAX_LIFE = 315360000000
-- Longest lease (ms): a day, as in the settings. A job whose worker is gone waits for its end.
local MAX_LEASE = 86400000
-- Of a worker so many pools are known: as many as it may announce, or draw from.
local MAX_ASKED_POOLS = 64
-- So many jobs wait at most to be looked at by the database's side.
local MAX_SET_ASIDE = 10000

local function integer(number)
  return string.format('%.0f', number)
end

-- Functions, since a table would be filled anew in every call.
local function is_priority(text)
  return text == 'standard' or text == 'interactive' or text == 'batch'
end

-- An end that can be asked for.
local function is_requested_end(text)
  return text == 'cancelled' or text == 'expired'
end

-- A state that the database can have committed.
local function is_final(text)
  return text == 'succeeded' or text == 'dead' or is_requested_end(text)
end

-- A state in which the hash of a job can be.
local function is_state(text)
  return text == WAITING or text == RUNNING or text == 'failed' or text == 'withdrawn' or text == 'poisoned'
    or is_final(text)
end

-- Return the whole number from 0 to `most` that a text is, or nil.
local function whole(text, most)
  local number = tonumber(text)
  if number and number >= 0 and number <= most and number % 1 == 0 then
    return number + 0
  end
end

-- Return the share that a text is, or nil. Less than the least counts as that.
local function share(text)
  local MIN_SHARE = 1e-9
  local number = tonumber(text)
  if number and number > 0 and number <= MAX_INTEGER then
    return math.max(number, MIN_SHARE)
  end
end

local function is_name(text)
  return text and #text > 0 and #text <= MAX_NAME_BYTES
end

-- An id of a job, which everybody must be able to read: printable ASCII.
local function is_id(text)
  return is_name(text) and not string.find(text, '[^ -~]')
end

-- Names that are kept in lists which spaces divide.
local function is_word(text)
  return is_name(text) and not string.find(text, '%s')
end

local function is_json(text, max_bytes)
  return #text <= max_bytes and pcall(cjson.decode, text)
end

-- A whole number of 64 bits. What is infinite, or no number, leaves no rest of 0.
local function is_token_id(value)
  return type(value) == 'number' and value % 1 == 0 and value >= -2 ^ 63 and value < 2 ^ 63
end

-- Whether cjson has read what is no JSON: numbers like 0x1, 01, 1., -.5, +1, nan and inf, control characters in texts, and
-- anything behind a zero byte.
local function is_odd(data)
  local text = string.find(data, '\\', 1, true) and string.gsub(data, '\\.', '') or data
  -- Texts may look like such numbers. Those with control characters stay, with their quotes.
  local rest = string.gsub(text, '"[^"%z\1-\31]*"', '')
  return string.find(rest, '[%[,:%s]%-?0[xX%d]')
    -- Mostly nothing is left but whole numbers.
    or string.find(rest, '[^%d,:%[%]{}]') and (string.find(rest, '%d%.%D') or string.find(rest, '["%z]')
      or string.find(rest, '[%[,:%s]%-?[+.iIN]') or string.find(rest, '[%[,:%s]%-?n[aA]'))
end

-- Whether the data of a delta hold so many tokens, in any spelling that readers know.
local function has_tokens(data, count)
  if #data > MAX_EVENT_BYTES then
    return false
  end
  local is_read, value = pcall(cjson.decode, data)
  if not is_read or type(value) ~= 'table' then
    return false
  end
  local ids, texts = value.t, value.s
  if ids == nil then
    ids, texts = value.ids == nil and value.token_ids or value.ids, value.texts
  end
  if type(ids) ~= 'table' or type(texts) ~= 'table' or #ids ~= count or #texts ~= count then
    return false
  elseif count == 0 and (next(ids) or next(texts)) then
    -- An object, whose keys are no numbers.
    return false
  end
  for i = 1, count do
    if not is_token_id(ids[i]) or type(texts[i]) ~= 'string' then
      return false
    end
  end
  return not is_odd(data)
end
