// Names every file of a folder as IPFS does: as one raw block, and as the importer behind `ipfs add` adds it under the profile of
// 2025 (CIDv1, raw leaves, blocks of up to 1 MiB). With arguments after the folder: these CIDs, read and printed again.
// Prints {"blocks": {file: CID}, "added": {file: CID}, "parsed": [{version, codec, hash, bytes, text}]}.

import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { importer } from 'ipfs-unixfs-importer'
import { CID } from 'multiformats/cid'
import * as raw from 'multiformats/codecs/raw'
import { sha256 } from 'multiformats/hashes/sha2'

const [folder, ...texts] = process.argv.slice(2)
const nowhere = { put: async (cid) => cid } // the importer asks its store for nothing else
const blocks = {}
const added = {}
for (const name of await readdir(folder)) {
  const content = new Uint8Array(await readFile(join(folder, name)))
  blocks[name] = CID.createV1(raw.code, await sha256.digest(content)).toString()
  for await (const entry of importer([{ path: name, content }], nowhere, { profile: 'unixfs-v1-2025' })) {
    added[name] = entry.cid.toString()
  }
}
const parsed = texts.map((text) => CID.parse(text)).map((cid) => ({
  version: cid.version,
  codec: cid.code,
  hash: cid.multihash.code,
  bytes: cid.multihash.digest.length,
  text: cid.toString()
}))
process.stdout.write(JSON.stringify({ blocks, added, parsed }))
