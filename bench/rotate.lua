-- wrk: sends the bodies in the file BODIES, one a line, in turn; at the end prints one line of JSON.
-- A line may have a path and a tab before its body; else the path is the one on the command line.
local requests, place = {}, 0

function init()
  wrk.method = "POST"
  wrk.headers["Authorization"] = "Bearer " .. os.getenv("TOKEN")
  wrk.headers["Content-Type"] = "application/json"
  for body in io.lines(os.getenv("BODIES")) do
    local path, rest = body:match("^(/[^\t]*)\t(.*)$")
    requests[#requests + 1] = wrk.format(nil, path, nil, rest or body)
  end
end

function request()
  place = place % #requests + 1
  return requests[place]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "errors": %d, "p50_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f}\n',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
