package tlspolicy

import (
	"strings"
)

// Attr is one attribute. Names are lower case.
type Attr struct{ Name, Value string }

// STS tells the attributes about an MTA-STS policy, policy_type= and those that
// need it; they came together.
func (a Attr) STS() bool {
	i := find(a.Name)
	return i >= 0 && (attributes[i].needsType || a.Name == policyType)
}

// Line is the right side of a policy line. The zero value is `none`.
type Line struct {
	Level Level
	Attrs []Attr
}

// String renders the line; see AppendTo.
func (l Line) String() string { return string(l.AppendTo(nil)) }

// AppendTo appends the line in its one canonical form: the level, then the
// attributes in their order, each as name=value, or as { name = value } where
// the value holds a space or a comma. Postfix reads back what went in, if
// Validate accepts the line; without that nothing is promised.
func (l Line) AppendTo(b []byte) []byte {
	b = append(b, l.Level.String()...)
	for _, a := range l.Attrs {
		if needsBraces(a.Value) {
			b = append(append(append(b, " { "...), a.Name...), " = "...)
			b = append(append(b, a.Value...), " }"...)
			continue
		}
		b = append(append(append(b, ' '), a.Name...), '=')
		b = append(b, a.Value...)
	}
	return b
}

func needsBraces(value string) bool { return strings.ContainsAny(value, " ,") }

// Validate tells whether a Postfix of that version accepts the rendered line
// and does what it says. The error is an *Error about the first attribute that
// is wrong.
func (l Line) Validate(v Version) error {
	if int(l.Level) >= len(levelNames) {
		return refuse(l.Level.String(), "is no TLS security level", "")
	}
	if l.Level == None && len(l.Attrs) > 0 {
		return ignoredAtNone(l.Attrs[0].Name + "=")
	}
	var seen [len(attributes)]bool
	var typed, first = false, ""
	for _, a := range l.Attrs {
		i, err := l.validateAttr(a, v)
		if err != nil {
			return err
		}
		if seen[i] && attributes[i].repeat == once {
			return refuse(a.Name+"=", "is given twice", "keep one")
		}
		seen[i] = true
		if a.Name == policyType {
			typed = true
		} else if attributes[i].needsType && first == "" {
			first = a.Name
		}
	}
	if first != "" && !typed {
		return refuse(first+"=", "needs policy_type=", "add policy_type=sts, or drop it")
	}
	if l.Level == Fingerprint && !seen[matchIndex] {
		return refuse(Fingerprint.String(), "has no fingerprint to match", "add match=, with digests separated by \"|\"")
	}
	return nil
}

// ignoredAtNone: smtp(8) warns about attributes at level none, whatever they
// say, and sends in clear.
func ignoredAtNone(token string) error {
	return unsafe(token, "is ignored at level none, mail goes in clear", "drop it, or use may or a stronger level")
}

// validateAttr checks one attribute by itself and gives its place in the table.
func (l Line) validateAttr(a Attr, v Version) (int, error) {
	i := find(a.Name)
	if i < 0 {
		fix := "leave it out"
		if guess := nearest(a.Name, attributeNames()); guess != "" {
			fix = "did you mean " + guess + "=?"
		}
		return i, refuse(clip(a.Name), "is no attribute of a policy", fix)
	}
	at := &attributes[i]
	if !v.atLeast(at.since.Major, at.since.Minor, 0) {
		return i, tooNew(a.Name+"=", at.since.branch(), v, "leave it out")
	}
	if at.levels != nil && !at.levels(l.Level) {
		return i, refuse(a.Name+"=", "is not allowed at level "+l.Level.String(), "use secure, or drop it")
	}
	if err := checkBytes(a); err != nil {
		return i, err
	}
	if at.check != nil {
		if err := at.check(a, l.Level, v); err != nil {
			return i, err
		}
	}
	if needsBraces(a.Value) && !v.atLeast(3, 10, 0) {
		return i, tooNew(clip(a.Value), "3.10", v, "separate by \":\", Postfix splits a line at spaces and commas")
	}
	return i, nil
}

// checkBytes refuses what could end a value early or begin another attribute.
func checkBytes(a Attr) error {
	for i := range len(a.Value) {
		switch c := a.Value[i]; {
		case c == '{' || c == '}':
			return unsafe(a.Name+"=", "has a brace in its value "+clip(a.Value), "write { "+a.Name+" = … } without braces inside")
		case c < ' ' || c > '~':
			return unsafe(a.Name+"=", "has bytes other than printable ASCII in its value "+clip(a.Value), "write names as A-labels (xn--…)")
		}
	}
	if strings.TrimSpace(a.Value) != a.Value {
		return unsafe(a.Name+"=", "has a value that begins or ends with a space", "drop the space")
	}
	return nil
}
