/** Decimals of a dollar that are told apart: a price has 10 for a million tokens. */
const DECIMALS = 16

/** Dollars as a whole number of 10⁻¹⁶, so that no sum is ever rounded. */
export type Money = bigint

/** Of a decimal string such as `"12.50"`; what is beyond 16 decimals is rounded up, away from a budget's favour. */
export const moneyOf = (usd: string): Money => {
  const [whole = "0", decimals = ""] = usd.split(".")
  const units = BigInt(`${whole}${decimals.slice(0, DECIMALS).padEnd(DECIMALS, "0")}`)
  return /[1-9]/.test(decimals.slice(DECIMALS)) ? units + 1n : units
}

/** As a decimal string, without zeros at its end. */
export const usdOf = (money: Money): string => {
  const sign = money < 0n ? "-" : ""
  const digits = String(money < 0n ? -money : money).padStart(DECIMALS + 1, "0")
  const decimals = digits.slice(-DECIMALS).replace(/0+$/, "")
  return `${sign}${digits.slice(0, -DECIMALS)}${decimals === "" ? "" : `.${decimals}`}`
}
