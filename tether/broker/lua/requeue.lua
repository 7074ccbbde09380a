-- ARGV: queue, broker, ids. Gives back what this broker holds of them. Returns how many.
local queue, broker = ARGV[1], ARGV[2]
local held = {}
for i = 3, #ARGV do
  if release(queue, broker, ARGV[i]) == 1 then
    held[#held + 1] = ARGV[i]
  end
end
return put_back(queue, held)
