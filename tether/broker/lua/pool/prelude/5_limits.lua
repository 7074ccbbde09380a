-- How many jobs of one tenant a worker may take: docs/decisions/quota-guard.md says why.

-- The limits that a draw is told of, or nil where it is told none. Part of the draw alone.
local function read_limits(text)
  local MAX_TENANTS, MAX_JOBS, PAGE = 8192, 1024, 64
  local is_read, told = pcall(cjson.decode, text)
  if not is_read or type(told) ~= 'table' then
    return nil
  end
  local others, left, count = told.others and whole(told.others, MAX_JOBS), told.left or {}, 0
  if told.others and (not others or others == 0) or type(left) ~= 'table' then
    return nil
  end
  for tenant, jobs in pairs(left) do
    count = count + 1
    if count > MAX_TENANTS or type(tenant) ~= 'string' or not whole(jobs, MAX_JOBS) then
      return nil
    end
    left[tenant] = whole(jobs, MAX_JOBS)
  end
  -- By pool, who was passed over; how often that was; for which pool's sake this worker was woken.
  local limits = {passed = {}, count = 0, woken_for = nil}

  -- Whether this worker may have no more of a tenant's jobs.
  function limits.is_out(tenant)
    return (left[tenant] or others or 1) <= 0
  end

  function limits.take(tenant)
    local jobs = left[tenant] or others
    left[tenant] = jobs and jobs - 1
  end

  function limits.note_passed(pool, tenant)
    limits.passed[pool] = limits.passed[pool] or {}
    limits.passed[pool][tenant] = true
    limits.count = limits.count + 1
  end

  -- Returns the first rank from this one on at which none of them stands.
  function limits.pass_over(pool, tenants, rank)
    while true do
      local page = apply('ZRANGE', tenants, rank, rank + PAGE - 1)
      for i, tenant in ipairs(page) do
        if not limits.is_out(tenant) then
          return rank + i - 1
        end
        limits.note_passed(pool, tenant)
      end
      rank = rank + #page
      if #page < PAGE then
        return rank
      end
    end
  end

  -- What is noted beside the pools of a worker that is idle: for these nobody wakes it.
  function limits.as_note()
    local names = {}
    for tenant, jobs in pairs(left) do
      names[tenant] = jobs <= 0 or nil
    end
    return next(names) and '\n' .. cjson.encode(names) or ''
  end

  return limits
end
