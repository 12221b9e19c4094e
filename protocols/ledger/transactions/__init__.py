"""One file for each kind of transaction: its body, and the one function that checks and applies it on every path.

chain_genesis       first block only: profile, council, clusters, certificates, miners
cert_issue          an account becomes active, or its certificate is renewed
cert_status         suspend, resume, revoke a certificate
key_rotate          another signing, voting or sealing key
policy_list_update  another version of the policy list, from a height on
council_update      another council, two boundaries after it is final
council_recover     lost voting keys are replaced by the offline recovery keys
rule_activation     another rule set, from a height on
penalty             warn, suspend or revoke an account
penalty_lift        end a penalty
cluster_define      a cluster's predicate and seats
miner_nominate      a member of a cluster recommends a candidate
miner_certify       the council certifies a candidate, or withdraws
term_handover       a drawn candidate shows that it holds the chain
folder_update       an owner's folder name moves
record_anchor       a record exists, with its parents and owners
approve             a named approver says yes or no
storage_receipt     holders' receipts for records, many at once
expiry_extend       another end of a record's validity
erase               a record's keys are void
equivocation        evidence: two seals in one slot, two votes that break the rules
records             what the state keeps of a record, and the rules that several kinds share
"""
