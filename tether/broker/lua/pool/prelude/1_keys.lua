-- Shared by every script of pool jobs. KEYS[1] is <namespace>:core:leases; all other keys live in the same slot.
local prefix = string.sub(KEYS[1], 1, -13)
local leases = KEYS[1]

local VERSION = '1'

local WAITING = 'placed'
local RUNNING = 'running'

local function key(name)
  return prefix .. ':' .. name
end

local function job_of(id)
  return key('job:' .. id)
end

local function stream_of(id)
  return key('stream:' .. id)
end

local function tenants_of(pool, priority)
  return key('pool:' .. pool .. ':' .. priority)
end

local function served_of(pool, priority)
  return key('served:' .. pool .. ':' .. priority)
end

-- Tenants with standard jobs in a pool, by when the oldest at a lane's head was placed, or earlier.
local function ages_of(pool)
  return key('pool:' .. pool .. ':ages')
end

local function idle_of(pool)
  return key('pool:' .. pool .. ':idle')
end

local function drawn_of(worker)
  return key('drawn:' .. worker)
end

-- Jobs that must run alone wait in lanes of their own, where they are in front of nobody.
local function alone_class(priority)
  return 'alone.' .. priority
end

-- Whose turn it is among a pool's jobs that must run alone.
local function quarantine_of(pool)
  return key('quarantine:' .. pool)
end

-- Jobs of a pool that ran in a process when it died: one of them may have been the cause.
local function suspects_of(pool, group)
  return key('suspects:' .. pool .. ':' .. group)
end

-- Which process has a boot id, until it is gone.
local function process_of(worker)
  return key('process:' .. worker)
end

-- Jobs whose leases ran out: what their worker's end makes of them is not known yet.
local function given_up_by(worker)
  return key('given_up:' .. worker)
end
