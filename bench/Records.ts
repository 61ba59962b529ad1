/** The collection that each tenant has its records in. */
export const COLLECTION = "notes"

/** Records of each tenant. */
export const RECORDS = 1000

/**
 * The id of a tenant's n-th record. The same in every tenant: whatever answers with another tenant's record has
 * found one of the right id, and its `data.tenant` gives it away.
 */
export const recordId = (n: number): string => `01900000-0000-7000-8000-${n.toString(16).padStart(12, "0")}`
