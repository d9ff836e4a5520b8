package align

// Check judges a message by what is known about it. The findings come worst
// class first, then in a fixed order of names; there is at most one of a name.
// The same evidence gives the same findings. It needs time linear in the header.
func Check(m *Message) []Finding {
	c := checker{Message: m, header: parseHeader(m.Fields)}
	c.author()
	return c.found.sorted()
}

// checker is one judgement.
type checker struct {
	*Message
	header *header
	found  findings
}

func (c *checker) author() {
	for _, p := range c.Author.Problems {
		c.found.add(p.Name, p.Class, p.Detail)
	}
}
