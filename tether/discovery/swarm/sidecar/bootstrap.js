// A private bootstrap node: `node bootstrap.js HOST PORT`. It ends when its standard input does, or on SIGTERM.
//
// Beside the node that newcomers ask it runs a second one, which keeps announcements: a network needs one that
// is always there.

import dgram from 'node:dgram'

import DHT from 'hyperdht'

const [host, told] = [process.argv[2], Number(process.argv[3])]

// The node's id is made of its address, so its port must be known before it is bound.
function freePort () {
  return new Promise((resolve, reject) => {
    const socket = dgram.createSocket('udp4')
    socket.on('error', reject)
    socket.bind(0, host, () => {
      const { port } = socket.address()
      socket.close(() => resolve(port))
    })
  })
}

async function stop () {
  await Promise.allSettled(nodes.map((node) => node.destroy({ force: true })))
  process.exit(0)
}

const nodes = []
try {
  const port = told || await freePort()
  const bootstrapper = DHT.bootstrapper(port, host)
  nodes.push(bootstrapper)
  await bootstrapper.fullyBootstrapped()
  const bound = bootstrapper.address().port
  const keeper = new DHT({ bootstrap: [{ host, port: bound }], host, ephemeral: false, firewalled: false })
  nodes.push(keeper)
  await keeper.fullyBootstrapped()
  process.stdout.write(`${JSON.stringify({ host, port: bound })}\n`)
} catch (error) {
  process.stderr.write(`${JSON.stringify({ level: 'error', event: 'The bootstrap node cannot run.', error: error.message })}\n`)
  process.exit(1)
}
process.on('SIGTERM', stop)
process.on('SIGINT', stop)
process.stdin.on('end', stop).resume()
