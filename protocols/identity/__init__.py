"""Who is who: values and rules of networks, domains, members and nodes. SPEC.md is normative.

networks       network ids, pre-shared keys of a connection
members        pseudonymous member ids
peers          libp2p peer ids of Ed25519 keys, as bytes and as text
certificates   X.509: root, issuer, member, node; the chain walk
attested       a signed object together with its signer's certificates
authority      who may sign what: root, issuer, member
revocation     who is out: a set that only grows
domains        the domains of a network beside the one that founded it
fences         the network's rotating secrets
tickets        invitations, and what the domain knows about each
announce       the address book's entries
keyfiles       private keys at rest
kit            the recovery kit on paper
textform       bytes as text with a checksum: base64url, base32
clockfloor     what time it is at least
"""
