// A js-libp2p node over TCP, Noise and Yamux with everything at its defaults, for tests/interop/test_js.py.
//   node peer.mjs listen          prints its multiaddr as one line; serves until its standard input ends
//   node peer.mjs dial ADDRESS    does one of everything towards ADDRESS, prints one line of JSON

import { createHash } from 'node:crypto'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

// The packages want node 22; this is all that node 20 lacks of it.
Promise.withResolvers ??= function () {
  const resolvers = {}
  resolvers.promise = new Promise((resolve, reject) => Object.assign(resolvers, { resolve, reject }))
  return resolvers
}

const MIB = 1024 * 1024
const BULK = 64 * MIB
const PIECE = new Uint8Array(256 * 1024).map((_, at) => (at * 31 + (at >> 8)) & 255)

const bytesOf = (chunk) => (chunk instanceof Uint8Array ? chunk : chunk.subarray())

async function sendAll (stream, size) {
  for (let left = size; left > 0; left -= PIECE.length) {
    if (!stream.send(PIECE.subarray(0, Math.min(left, PIECE.length)))) await stream.onDrain()
  }
}

async function hashAll (stream) {
  const hash = createHash('sha256')
  let size = 0
  for await (const chunk of stream) {
    const bytes = bytesOf(chunk)
    hash.update(bytes)
    size += bytes.length
  }
  return `${size} ${hash.digest('hex')}`
}

async function textOf (stream) {
  let text = ''
  for await (const chunk of stream) text += Buffer.from(bytesOf(chunk)).toString()
  return text
}

const handlers = {
  '/echo/1': async (stream) => {
    for await (const chunk of stream) {
      if (!stream.send(bytesOf(chunk).slice())) await stream.onDrain()
    }
    await stream.close()
  },
  '/sink/1': async (stream) => { // answers after the other side has half-closed
    stream.send(Buffer.from(await hashAll(stream)))
    await stream.close()
  },
  '/source/1': async (stream) => {
    await sendAll(stream, BULK)
    await stream.close()
  },
  '/reset/1': async (stream) => { stream.abort(new Error('as asked')) }
}

const node = await createLibp2p({
  addresses: { listen: process.argv[2] === 'listen' ? ['/ip4/127.0.0.1/tcp/0'] : [] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  connectionMonitor: { enabled: false }
})
for (const [protocol, handler] of Object.entries(handlers)) {
  await node.handle(protocol, (stream) => { handler(stream).catch(() => {}) }, { maxInboundStreams: 256 })
}

if (process.argv[2] === 'listen') {
  console.log(node.getMultiaddrs()[0].toString())
  process.stdin.resume()
  process.stdin.on('end', async () => { await node.stop(); process.exit(0) })
} else {
  const connection = await node.dial(multiaddr(process.argv[3]))
  const results = {}
  const echo = await connection.newStream('/echo/1')
  echo.send(Buffer.from('hello'))
  await echo.close()
  results.echo = await textOf(echo)
  const [up, down] = await Promise.all([
    (async () => {
      const sink = await connection.newStream('/sink/1')
      await sendAll(sink, BULK)
      await sink.close()
      return await textOf(sink)
    })(),
    (async () => {
      const source = await connection.newStream('/source/1')
      await source.close()
      return await hashAll(source)
    })()
  ])
  results.up = up
  results.down = down
  try {
    const reset = await connection.newStream('/reset/1')
    await textOf(reset)
    results.reset = reset.status // a reset that came before the reading ends it quietly
  } catch (error) {
    results.reset = error.name
  }
  const again = await connection.newStream('/echo/1')
  again.send(Buffer.from('still here'))
  await again.close()
  results.again = await textOf(again)
  console.log(JSON.stringify(results))
  await node.stop()
  process.exit(0)
}
