// The sidecar: `node sidecar.js FD`. It talks to Tether over the socket FD, and ends when that does.

import net from 'node:net'

import { Program } from './source/program.js'

function log (level, event, fields = {}) {
  process.stderr.write(`${JSON.stringify({ level, event, ...fields })}\n`)
}

const descriptor = Number(process.argv[2])
if (!Number.isInteger(descriptor)) {
  log('error', 'This program is started by Tether, with the number of a socket.')
  process.exit(2)
}
// Tether tells it when to stop; a terminal's Ctrl-C goes to both.
process.on('SIGINT', () => {})
process.on('uncaughtException', (error) => {
  log('error', 'The sidecar failed.', { error: error.stack })
  process.exit(1)
})

new Program({ channel: new net.Socket({ fd: descriptor }), log, exit: (status) => process.exit(status) })
