"""The ledger's ground floor: values, rules, chains in memory."""
