"""Every bound of the protocols, with unit and reason. A limit without a name does not exist."""

# --- bytes on the wire -------------------------------------------------------------------------------------------
# 256 KiB blocks: the unit of entry digests and of chunks, so that each plain byte is hashed once (RECORDS §4).
BLOCK_BYTES = 256 * 1024
AEAD_TAG_BYTES = 16
SEALED_CHUNK_BYTES_MAX = BLOCK_BYTES + AEAD_TAG_BYTES
# One chunk with its message header, or one batch of small objects; a peer can make us hold one frame per stream.
FRAME_BYTES_MAX = 512 * 1024
FRAME_HEADER_BYTES = 4
assert SEALED_CHUNK_BYTES_MAX + 1024 <= FRAME_BYTES_MAX
# Before a peer is proven it may not make us hold more than a chain of four certificates and a few hashes.
FRAME_BYTES_MAX_UNPROVEN = 32 * 1024
# Of all streams of an unproven peer's connection together, read from it and not yet by us: one frame being judged, and the next.
UNREAD_BYTES_MAX_UNPROVEN = 2 * FRAME_BYTES_MAX_UNPROVEN
# Nesting of decoded values: our deepest record has 6 levels; typed decoding stops at the type's own depth.
CODEC_DEPTH_MAX = 16

# --- the encrypted session and its streams (noise/, yamux/) --------------------------------------------------------
NOISE_LENGTH_BYTES = 2
NOISE_MESSAGE_BYTES_MAX = 65535  # by the format
NOISE_PLAIN_BYTES_MAX = NOISE_MESSAGE_BYTES_MAX - AEAD_TAG_BYTES
# What a quiet connection holds to receive into; it doubles while reads fill it. Beyond 512 KiB nothing more was gained.
RECEIVE_BUFFER_BYTES_MIN = 4 * 1024
RECEIVE_BUFFER_BYTES_MAX = 512 * 1024
# Of an unproven peer's: a full message and the next read.
RECEIVE_BUFFER_BYTES_MAX_UNPROVEN = 128 * 1024
# How long a message or frame may stay half received: this, and what its bytes need on the slowest link that is worth having.
HALF_RECEIVED_MAX_S = 30.0
LINK_RATE_MIN = 16 * 1024  # bytes a second
STREAM_WINDOW_BYTES = 256 * 1024  # of a new stream, by the format
# A window is a promise to buffer. Only streams that the application empties get more. 8 MiB: 200 MB/s at 40 ms; on loopback,
# 4 MiB gave 674 MB/s, 8 MiB 794, 16 MiB 829.
STREAM_WINDOW_BYTES_MAX = 8 * 1024 * 1024
# Credit is given for this share of a window, so at most that share lies idle. With a half of it, the usual choice, bursts settle just
# below the mark and half of the window waits a round trip: 102 MB/s at 40 ms instead of 209 (tests/protocols/yamux/test_model.py).
STREAM_CREDIT_SHARE = 8
STREAM_CREDIT_BYTES_MIN = 128 * 1024  # for small windows the half: a credit is a frame, and a wake-up of the peer
WINDOWS_GROWN_BYTES_MAX = 32 * 1024 * 1024  # over a connection: four bulk streams at full width
WINDOWS_GROWN_PROCESS_BYTES_MAX = 128 * 1024 * 1024
# Arrived and not yet taken by the application. The first windows of all streams could add up to more: the fullest stream goes then.
STREAMS_HELD_BYTES_MAX = 32 * 1024 * 1024
STREAMS_HELD_PROCESS_BYTES_MAX = 256 * 1024 * 1024
# Below it a connection keeps its streams though others hold all that the process has.
STREAMS_HELD_ALWAYS_BYTES = 1024 * 1024
assert 2 * STREAM_WINDOW_BYTES_MAX <= STREAMS_HELD_BYTES_MAX
DATA_FRAME_BYTES_MAX = 256 * 1024  # of ours; larger ones gain little and make other streams wait
# One pass of the writer where the line is quick: a millisecond of the event loop. Elsewhere small messages would wait behind it.
BATCH_BYTES_MAX = 1024 * 1024
BATCH_BYTES_MIN = 512 * 1024
# Copied instead of kept as a view: ten bytes would otherwise keep a whole message alive.
SMALL_PIECE_BYTES = 16 * 1024
STREAMS_INBOUND_MAX = 128
STREAMS_OUTBOUND_MAX = 128
# A peer that makes us answer (open, over and over) and never reads the answers is put out.
CONTROL_FRAMES_MAX = 4096
PONGS_WAITING_MAX = 32  # others ask once in 30 s; whoever asks faster than the answers leave measures nothing
# A stopped process still has a kernel that answers keepalives; so the muxer asks too, when nothing was heard, and wants to hear anything.
PING_IDLE_S = 5.0
PING_PATIENCE_S = 10.0
SEND_WINDOW_BYTES_MAX = 2**32 - 1  # no peer has more memory than that for one stream

# --- records ------------------------------------------------------------------------------------------------------
CHUNKS_PER_SEQUENCE = 16  # 4 MiB: the sweet spot of one durable commit (docs/decisions/0002)
CHUNKS_PER_SEQUENCE_MAX = 1024
MANIFEST_CHUNKS_MAX = 4096
INLINE_CONTENT_BYTES_MAX = 64 * 1024
ENTRIES_PER_PAGE = 1000
PATH_BYTES_MAX = 4096
ENTRIES_MAX = 1_000_000
PAD_BYTES_MIN = 1024
OFFER_LIFETIME_S = 24 * 3600
WRAPS_PER_RECORD_MAX = 4096
RECEIPT_ITEMS_MAX = 1024
# What a holder puts into one receipt: it goes onto the ledger as it was signed, in a transaction of at most 64 KiB. One record with
# RECEIPT_ITEMS_MAX sequences fits.
RECEIPT_BYTES_MAX = 48 * 1024
# Head of a manifest: at most ENTRIES_MAX / ENTRIES_PER_PAGE page references, each with a path.
MANIFEST_HEAD_BYTES_MAX = 8 * 1024 * 1024
# One page: ENTRIES_PER_PAGE entries, each with a path and a link target.
ENTRY_PAGE_BYTES_MAX = 9 * 1024 * 1024
MEDIA_TYPE_BYTES_MAX = 256
NOTES_BYTES_MAX = 4096
TAGS_MAX = 64
TOMBSTONE_COVERS_MAX = 256
AUDIT_RANGES_MAX = 64
AUDIT_RANGE_BYTES_MAX = 64 * 1024

# --- identity -----------------------------------------------------------------------------------------------------
CERTIFICATE_BYTES_MAX = 4096
CHAIN_LENGTH_MAX = 4
TICKETS_OPEN_MAX = 64
FENCES_KEPT_MAX = 64
# Domains of one network, the founding one included. Each has its share of the fences that are kept: with this many still two.
DOMAINS_MAX = 32
assert FENCES_KEPT_MAX // DOMAINS_MAX >= 2
# Of one other domain: its issuers may certify whom they like, and every node of the network keeps the addresses.
NODES_PER_OTHER_DOMAIN_MAX = 1024
# Root's and issuers' entries of one other domain, and of all others together: ours must always find room.
REVOCATIONS_PER_OTHER_DOMAIN_MAX = 1024
REVOCATIONS_OF_OTHERS_MAX = 8192
FENCE_LIFETIME_S = 400 * 86400
# 32 MiB and about 0.1 s on a laptop, 0.5 s on a Pi 4, for each guess of a passphrase.
SCRYPT_COST = 2**15
# 256 MiB: what a file from elsewhere may make us allocate.
SCRYPT_COST_MAX = 2**18
KEY_FILE_BYTES_MAX = 256 * 1024
TICKET_LIFETIME_S = 24 * 3600
# A used or ended ticket is remembered so long, so that a late copy of its opening does not bring it back.
TICKET_MEMORY_S = 30 * 86400
# Of the open tickets at most so many of one member's, so that nobody crowds the others out.
TICKETS_PER_MEMBER_MAX = 8
# And remembered, whatever became of them.
TICKETS_KEPT_PER_MEMBER_MAX = 64
# Each costs a node about 1 KiB of memory; only root, issuers and members about themselves can add one.
REVOCATIONS_MAX = 16384
# Of one member's words about its own nodes; beyond it those of the lowest hash are kept.
REVOCATIONS_PER_MEMBER_MAX = 128
REVOCATION_REASON_BYTES_MAX = 64
FENCE_NUMBER_MAX = 2**53
NAME_BYTES_MAX = 64
ADDRESSES_PER_NODE_MAX = 16
ADDRESS_BYTES_MAX = 256

# --- time ---------------------------------------------------------------------------------------------------------
AUTH_TIMEOUT_S = 10.0
# Pages of the revocation and fence exchange: far enough below FRAME_BYTES_MAX_UNPROVEN that one more entry always fits.
AUTH_HASHES_PER_PAGE = 512
AUTH_PAGE_BYTES = 16 * 1024
# An answer may pass through a relay and wait for a passphrase-slow Pi; after that another issuer is tried.
JOIN_TIMEOUT_S = 30.0
JOIN_ATTEMPTS_MAX = 4
JOIN_ISSUERS_MAX = 8
JOIN_SEALED_BYTES_MAX = 4 * 1024
# What an admission carries at most; the rest comes with `auth` and gossip. Together below one frame.
JOIN_ADDRESS_BOOK_BYTES = 192 * 1024
JOIN_REVOCATIONS_BYTES = 64 * 1024
JOIN_FENCES_BYTES = 96 * 1024
JOIN_DOMAINS_BYTES = 64 * 1024
assert JOIN_ADDRESS_BOOK_BYTES + JOIN_REVOCATIONS_BYTES + JOIN_FENCES_BYTES + JOIN_DOMAINS_BYTES + 64 * 1024 <= FRAME_BYTES_MAX
AUTH_FEATURES_MAX = 32
FEATURE_BYTES_MAX = 32
assert AUTH_HASHES_PER_PAGE * 34 + 1024 <= FRAME_BYTES_MAX_UNPROVEN
assert AUTH_PAGE_BYTES + 3 * CERTIFICATE_BYTES_MAX + 1024 <= FRAME_BYTES_MAX_UNPROVEN
CLOCK_SKEW_MAX_S = 300
# Members whose word on the time is remembered: two that agree are enough, and a few hundred say what most believe.
CLOCK_REPORTS_MAX = 256
TOMBSTONE_LIFETIME_S = 400 * 86400
TRASH_WINDOW_S = 7 * 86400
RECEIPT_LIFETIME_S = 30 * 86400

# --- ledger -------------------------------------------------------------------------------------------------------
# What one chain allows stands in its profile; here is what no profile may exceed, and what every chain shares.
NUMBER_MAX = (1 << 63) - 1  # every language's signed 64-bit integer holds it
HEADER_BYTES = 84
# A block travels as one frame.
BLOCK_BYTES_MAX = 384 * 1024
assert BLOCK_BYTES_MAX + 1024 <= FRAME_BYTES_MAX
# A handover with its proofs, or a batch of receipts, is the largest transaction.
TX_BYTES_MAX = 64 * 1024
# Each costs every node one verification (about 0.1 ms on a laptop, 0.5 ms on a Pi 4).
SIGNATURES_MAX = 32
LINKS_MAX = 32
BLOCK_TRANSACTIONS_MAX = 4096
# Two for each member and the chain's slowest answer.
BLOCK_VOTES_MAX = 256
COUNCIL_MEMBERS_MAX = 31
CLUSTERS_MAX = 64
MINERS_MAX = 256
# Timed conditions that one block fires; the rest come with the next block, in order.
CONDITIONS_PER_BLOCK_MAX = 1024
# Blocks whose hashes the state knows one by one; what is older is proved through the history tree.
RECENT_BLOCKS = 1024
RETARGET_BLOCKS = 64
RETARGET_STEP_MAX = 2
RETARGET_FACTOR = 13
EVIDENCE_TERMS = 20
HANDOVER_LEAVES = 3
HANDOVER_KEYS = 3
TREE_DEPTH_MAX = 256
TEXT_BYTES_MAX = 256
ATTRIBUTES_MAX = 32
PARENTS_MAX = 64
OWNERS_MAX = 16
POLICY_ROWS_MAX = 256
# Of a miner's participation counters: so many missed slots more than sealed ones and it is not recommended.
MISSED_GRACE = 10
# Local policy of sealing and voting (LEDGER: quiet chain, votes).
HEARD_WITHIN_MS = 10_000
LONELY_MS = 30_000
HEARTBEAT_MS = 600_000
# Pool.
POOL_TRANSACTIONS_MAX = 16384
POOL_BYTES_MAX = 32 * 1024 * 1024
POOL_PER_SENDER_MAX = 256
POOL_PER_PEER_MAX = 2048
# Signed transactions handed to a node in one call: as many as fit the bytes of a call (about 780 anchors), judged in one turn of a thread.
SUBMITTED_MAX = 1024
# Filing: what an owner's node has waiting at once, of POOL_PER_SENDER_MAX, so that a second node of the same owner finds room too.
ANCHORS_WAITING_MAX = 112
ANCHOR_LIFE_MS = 3_600_000
FOLDER_LIFE_MS = 120_000
# Receipts of one transaction: well below TX_BYTES_MAX; and the least time between two such transactions of one node.
RECEIPTS_BYTES_PER_BATCH_MAX = 32 * 1024
assert RECEIPT_BYTES_MAX + 1024 <= TX_BYTES_MAX
RECEIPTS_PAUSE_S = 60.0
FOLDER_PAUSE_S = 30.0
# Chains that one node follows: its domain's, which records are anchored on, and others beside it. Each has a database, a pool, a search
# for work and a conversation with every peer that follows it too.
CHAINS_PER_NODE_MAX = 4
# Pool of a further chain: a quarter of the first one's.
FURTHER_POOL_TRANSACTIONS_MAX = POOL_TRANSACTIONS_MAX // 4
FURTHER_POOL_BYTES_MAX = POOL_BYTES_MAX // 4
FURTHER_POOL_PER_PEER_MAX = POOL_PER_PEER_MAX // 4
# A peer that refused a stream about a further chain follows it perhaps later.
FURTHER_AGAIN_S = 10.0
# Streams that one peer opens about one chain: one that it is using, and one that it opens after the first broke before we noticed.
LEDGER_STREAMS_PER_CHAIN_MAX = 2
# Conversation `ledger`: what one message, one page, one peer may be.
LEDGER_IDS_PER_MESSAGE_MAX = 1024
# Bodies of transactions and votes in one message; far below a frame, so that one more always fits.
LEDGER_BODIES_BYTES_MAX = 256 * 1024
assert LEDGER_BODIES_BYTES_MAX + TX_BYTES_MAX + 1024 <= FRAME_BYTES_MAX
# Ids asked of one peer and not answered; more wait for its next announcement.
LEDGER_WANTED_MAX = 4096
# Headers of one page of a sync, each with its leaf 0 and path: below 64 KiB.
HEADERS_PER_PAGE_MAX = 64
# Hashes that say where two chains part, one for each doubling of the distance.
LOCATOR_HASHES_MAX = 64
# Bodies asked for at once: at most 6 MiB on their way from one peer.
BLOCKS_PER_PAGE_MAX = 16
# Seats and sealing keys that one node speaks for in a sign of life.
WITNESSES_MAX = 4
CHALLENGE_BYTES = 32
LEDGER_BEAT_S = 3.0
LEDGER_SILENCE_MAX_S = 12.0
# A peer that was asked for headers or bodies and gives none for so long is given up.
LEDGER_PATIENCE_S = 20.0
# Announced anew: what was lost on the way is found again. Above the longest pause between two beats.
LEDGER_RECONCILE_S = 9.0
# Votes above the final block that are kept of one member: more come only from one that breaks its promises.
VOTES_PER_MEMBER_MAX = 512
# A vote for a block so far above the head is not kept: it comes again with its block.
VOTE_AHEAD_MAX = 1024
# Blocks of one miner in one slot that are kept when they come by themselves: two are evidence already.
BLOCKS_PER_SLOT_MAX = 2
# Those that were asked for because others build on them: a liar who seals many must not shut out the one that counts, nor fill the disk.
BLOCKS_PER_SLOT_ASKED_MAX = 64
# Blocks held back because their time has not come.
EARLY_BLOCKS_MAX = 16
# Score at which a peer is banned that brought what no honest node sends, where one fault alone ends the connection: the third within
# half an hour. Two may be one mistake on both sides of a restart.
FAULTS_UNTIL_BAN = 2.5
# What a peer's faults count is halved in this time: a mistake a day never adds up.
FAULT_HALF_LIFE_S = 3600.0
# Peers whose faults are remembered: more than any domain has members; of too many, those with the fewest go.
FAULTY_PEERS_MAX = 1024
# A node that lost its last sealed slot begins to seal so many slots after its start.
SLOTS_WITHOUT_PROMISE = 60
# Keys that one node ever made to replace its own: each is tried when votes of its member come.
ROTATIONS_MAX = 64
# Snapshots: nodes of a state tree in one question (each 65 bytes, a leaf with its value), and the bytes of one answer.
STATE_NODES_PER_MESSAGE_MAX = 256
STATE_BYTES_PER_MESSAGE_MAX = 256 * 1024
# Heights below the final one whose states can still be proved and fetched: about 8 KB each in a small chain.
STATES_KEPT = 1000
# Light nodes: keys or headers of one question, the bytes of one answer (one item always fits), votes of one proof: as a block carries.
LIGHT_KEYS_PER_MESSAGE_MAX = 64
LIGHT_BUNDLES_PER_MESSAGE_MAX = 16
LIGHT_ANSWER_BYTES_MAX = 256 * 1024
LIGHT_VOTES_MAX = 256
# Changes of the committee in one answer; whoever slept through more asks again.
LIGHT_SUCCESSIONS_MAX = 16
# Named places of a state: the longest space and key that any kind writes.
LIGHT_KEY_BYTES_MAX = 1024
# A node with an anchor that nobody has a state for fetches the whole history instead, after so long.
JOIN_PATIENCE_S = 60.0
# Evidence: seals of blocks, votes of one member that are compared with new ones, and contradictions waiting to be told.
SEALS_WATCHED_MAX = 4096
VOTES_WATCHED_MAX = 512
SUSPICIONS_MAX = 64
# Transactions whose denials are kept until they are final.
DENIED_MAX = 16384
# A hand-over or an accusation that no block took for so long is made anew on another block.
OWN_ACT_LIFE_MS = 600_000
# How long a node listens after a start before it seals or votes.
LISTEN_FIRST_MS = 10_000
# Network time. At most so much faster or slower than the steady clock: a liar can pull no faster, and 10 s are made good in half an hour.
TIME_SLEW_MS_PER_S = 5
# Differences below are left alone: what messages on their way and clocks of 50 ppm make of equal times.
TIME_IGNORED_MS = 60
# Above, slewing would take hours in which votes come late: the node rests, listens and sets its time, as after a start.
TIME_STEP_MS = 2_000
# It acts again when it finds itself so near to them: a block's time stamp may be as far ahead.
TIME_SETTLED_MS = 250
# Beyond it nothing is followed unasked: somebody has to look.
TIME_JUMP_MS_MAX = 3_600_000
# A report is right to half of the way there and back; a slower one is worth less than none.
TIME_ROUND_TRIP_MS_MAX = 1_000
# Ten beats without a word, and a member does not count; of the last eight reports the most exact counts.
TIME_REPORT_AGE_MS_MAX = 30_000
TIME_REPORTS_KEPT = 8
# Year 6429: what is above is no time, and cannot be written as one.
TIME_MS_MAX = 1 << 47
# Nonces of one step of a search: about 1 ms on a laptop, so that a sealer lets go within 50 ms on a machine twenty times slower.
SEARCH_STEP_NONCES = 4096
