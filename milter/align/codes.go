package align

// Refusal is how one kind of receiver answers to a message.
type Refusal struct {
	// Receiver is "Gmail", "Yahoo", "Microsoft", or the RFC that others follow.
	Receiver string
	Code     string // reply and enhanced status code
	Text     string // what it is about, in their words but shortened
}

// Where a provider defers bulk mail first, the same code begins with 421 4.
// Texts and numbers move; this table is the one place to mend.
var refusals = map[string][]Refusal{}

// Refusals returns what receivers answer to a message with that finding, the
// most telling first; nil when nobody names it.
func Refusals(name string) []Refusal { return refusals[name] }

// code is the first of them.
func code(name string) string {
	if all := refusals[name]; len(all) > 0 {
		return all[0].Code
	}
	return ""
}
