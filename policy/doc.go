// Package policy gives the verdict about a destination: which TLS policy Postfix
// is told for a next hop, and why.
//
// An Engine gathers evidence (operator rules, MTA-STS, DANE), remembers and
// refreshes it; Decide, a pure function, weighs it by the decision table; the
// Decision it returns writes itself in the grammar of the asking Postfix.
// Evidence is kept, never verdicts: what Decide returns follows from what is known at
// that moment, so a changed rule or option takes effect at once.
package policy
