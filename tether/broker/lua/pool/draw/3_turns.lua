-- Turns: of jobs that must run alone, and of tenants that are apart.

local may_take_turn, take_turn
do
  -- Whether jobs of others than tenants that are apart wait in one of this worker's pools; known once it was asked for.
  local others_wait
  local function are_others_waiting()
    if others_wait == nil then
      others_wait = false
      for _, pool in ipairs(open_pools) do
        others_wait = others_wait or do_others_wait(pool, apart[pool])
      end
    end
    return others_wait
  end

  local function is_shared(state)
    return are_others_waiting() or were_others_served(state, now)
  end

  -- Whether a turn is over: its jobs have ended or did no harm; or they ended their process, and its worker is back, or
  -- does not come.
  local function is_turn_over(its)
    if its.ended > 0 then
      return worker_of(its.worker) == worker_id or its.ended > now or its.ended + APART.RESTART_MS <= now
    end
    return its.until_ms <= now or its.until_ms > now + BLAME.MAX_PROOF_MS or redis.call('EXISTS', drawn_of(its.worker)) == 0
  end

  -- Others come first after a turn, for as long as it took; it may be long over where nobody asked.
  local function end_turn(pool, state)
    local its = state.turn
    local over_at = math.min(now, its.ended > 0 and its.ended + APART.RESTART_MS or its.until_ms)
    local rest = math.min(APART.MAX_REST_MS, math.max(APART.MIN_REST_MS, over_at - its.began))
    state.turn, state.rest = nil, now + rest
    if worker_of(its.worker) == worker_id then
      worker_rest = state.rest
    end
    apply('HDEL', apart_of(pool), 'turn')
    note_apart(pool, 'rest', integer(state.rest))
    redis.call('SET', key('rest:' .. worker_of(its.worker)), integer(state.rest), 'PX', rest)
  end

  -- Whether a turn may begin in a pool, or go on, as far as its tenants are concerned: where others use the pool one at a
  -- time, and while others wait not before these had their time.
  may_take_turn = function(pool)
    local state = apart[pool]
    if not state then
      return true
    end
    local its = state.turn
    if its and its.worker == worker and its.ended == 0 and not busy and its.began <= now
        and its.began + APART.TURN_MS > now then
      return true
    elseif its and is_turn_over(its) then
      end_turn(pool, state)
    elseif its and is_shared(state) then
      soon(1000)
      return false
    end
    local rest = math.max(state.rest, worker_rest)
    if rest > now and rest <= now + APART.MAX_REST_MS and are_others_waiting() then
      soon(rest - now)
      return false
    end
    return true
  end

  take_turn = function(pool, until_ms)
    local its = apart[pool].turn
    local goes_on = its and its.worker == worker and its.ended == 0 and its.began <= now and its.began + APART.TURN_MS > now
    apart[pool].turn = {began = goes_on and its.began or now, until_ms = until_ms, ended = 0, worker = worker}
    write_turn(pool, apart[pool].turn)
    note_beginning(pool)
  end

  local has_alone, has_apart
  do
    -- Whether the job of an entry waits there, and what is held against it. Any other entry is thrown away.
    local function does_wait(list, entry)
      local id, ticket = string.match(entry, '^(.+) (%d+)$')
      local state, job_ticket, suspicion = read(job_of(id or ''), 'state', 'ticket', 'suspicion')
      if state == WAITING and job_ticket == ticket then
        return true, suspicion
      end
      apply('LREM', list, 1, entry)
      if not is_state(state) then
        set_aside(id or entry, 'draw')
      end
      return false
    end

    -- Whether a job waits in the pool's lanes of those that must run alone, and may run now.
    has_alone = function(pool)
      for _, priority in ipairs(PRIORITIES) do
        local tenants, at = tenants_of(pool, alone_class(priority)), {0, 0}
        for _ = 1, MAX_DISCARDED_OF_LANE do
          local tenant = apply('ZRANGE', tenants, at[1], at[1])[1]
          if not tenant then
            break
          end
          local list = tenants .. ':' .. tenant
          local is_out = limits and limits.is_out(tenant)
          local entry = not is_out and apply('LINDEX', list, at[2])
          local is_there, suspicion = false, nil
          if entry then
            is_there, suspicion = does_wait(list, entry)
          end
          if is_there then
            local wait = wait_for_survivors(suspicion, pool, now)
            if wait == 0 then
              return true
            end
            soon(wait)
            at[2] = at[2] + 1
          elseif is_out then
            at = {limits.pass_over(pool, tenants, at[1]), 0}
          elseif not entry and at[2] > 0 then
            at = {at[1] + 1, 0}
          elseif not entry then
            redis.call('ZREM', tenants, tenant)
          end
        end
      end
      return false
    end

    -- Whether jobs of a tenant that is apart wait in a pool, as far as so many entries show that its lanes begin with.
    has_apart = function(pool)
      for _, record in ipairs(apart[pool] and apart[pool].apart or {}) do
        for _, priority in ipairs(record.since > 0 and PRIORITIES or {}) do
          local list = tenants_of(pool, priority) .. ':' .. record.tenant
          for _ = 1, limits and limits.is_out(record.tenant) and 0 or MAX_DISCARDED_OF_LANE do
            local entry = apply('LINDEX', list, 0)
            if not entry then
              break
            elseif does_wait(list, entry) then
              return true
            end
          end
        end
      end
      return false
    end
  end

  -- Whether this worker is the one that runs the pool's next job alone, or apart.
  local function is_quarantine_of(pool)
    local kept = read_keeping(pool, now)
    if not may_take_turn(pool) then
      return false
    elseif kept.keeper == worker then
      return true
    elseif kept.keeper and (busy or #answer > 2) then
      -- Only who runs nothing need not wait for that one, whose last job may take long.
      return false
    elseif apart[pool] then
      return true
    elseif not kept.since or kept.since > now then
      note_quarantine(pool, 'since', integer(now))
      soon(BLAME.ALONE_PATIENCE)
      return false
    elseif kept.since + BLAME.ALONE_PATIENCE > now then
      soon(kept.since + BLAME.ALONE_PATIENCE - now)
      return false
    end
    return true
  end

  -- Gives this worker jobs of a tenant that is apart: nothing else, until they have shown that they do no harm.
  local function draw_apart(pool, record, running)
    -- One after a death, and the more the longer none followed.
    local most, before = is_shared(apart[pool]) and math.max(0, record.proofs + 1 - running) or count, #answer
    turn_of = record.tenant
    for _, class in ipairs(PRIORITIES) do
      while wants_more() and #answer - before < most and draw_of_lane(pool, class, record.tenant) == 'taken' do
      end
    end
    turn_of = nil
    if #answer > before then
      local until_ms = now + math.min(APART.MAX_PROOF_MS, proof_of(record.ran))
      record.turned = now
      write_watched(pool, record)
      write_run(worker, until_ms, pool, record.tenant)
      take_turn(pool, until_ms)
      is_full = true
      soon(math.min(1000, until_ms - now))
    end
  end

  -- What this process runs of a tenant that is apart goes on, with more of it or, once it did no harm, with others.
  local function go_on_apart()
    local running = redis.call('HLEN', drawn_of(worker))
    local state = apart[run.pool] or read_apart(run.pool, now)
    local record = is_apart(state, run.tenant) and state.watched[run.tenant]
    local may_draw = record and apart[run.pool] and wants_more() and not is_barred(run.pool)
    local is_alone = may_draw and not is_shared(state) and not do_others_wait(run.pool, state, run.tenant)
    if running == 0 then
      redis.call('DEL', run_of(worker))
    elseif run.is_proved then
      if not run.is_counted then
        write_run(worker, 0, run.pool, run.tenant)
        if record then
          note_proofs(record, run.pool, running, now)
        end
      end
      if is_alone and record.since > 0 then
        draw_apart(run.pool, record, running)
      end
    else
      local its = state and state.turn
      if is_alone or may_draw and its and its.worker == worker and its.began + APART.TURN_MS > now then
        draw_apart(run.pool, record, running)
      end
      is_full = true
      soon(math.min(1000, run.left))
    end
  end

  if run and count > 0 then
    go_on_apart()
  end
  for _, pool in ipairs(alone_pools) do
    -- Where tenants are apart their turns take care that others come first.
    if (apart[pool] or not is_others_turn) and wants_more() and not is_barred(pool) and is_quarantine_of(pool) then
      local is_trial = not is_trying(pool, now) and has_alone(pool)
      if busy or #answer > 2 then
        if (is_trial or has_apart(pool)) and keep_free(pool, worker, are_others_waiting(), now) then
          is_full = true
          soon(1000)
        end
      elseif is_trial then
        for _, priority in ipairs(PRIORITIES) do
          if wants_more() then
            draw_of_pool(pool, alone_class(priority))
          end
        end
      else
        for _, record in ipairs(apart[pool] and apart[pool].apart or {}) do
          if record.since > 0 and wants_more() then
            draw_apart(pool, record, 0)
          end
        end
      end
    end
  end
end
