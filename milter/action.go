package milter

import "fmt"

// Action is what is done about a finding. The order is that of their strength.
type Action uint8

const (
	Monitor  Action = iota // the message goes on; the finding is logged and counted
	Hold                   // it goes to Postfix's hold queue
	Tempfail               // 4xx: it stays with whoever sends it, and is tried again
	Reject                 // 5xx
)

var actionNames = [...]string{"monitor", "hold", "tempfail", "reject"}

// String gives the action as the configuration has it.
func (a Action) String() string { return actionNames[a] }

// MarshalText gives the action as the configuration has it.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// ParseAction reads an action.
func ParseAction(s string) (Action, error) {
	for i, name := range actionNames {
		if s == name {
			return Action(i), nil
		}
	}
	return Monitor, fmt.Errorf("%.100q is not allowed; write \"monitor\", \"hold\", \"tempfail\" or \"reject\"", s)
}
