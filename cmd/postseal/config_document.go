package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxConfigFile bounds one file, in octets: a hundred times what 1,000 rules need.
const maxConfigFile = 16 << 20

// document is one TOML file: its values, and the line on which each stands.
type document struct {
	path   string
	values map[string]any
	// lines is keyed by the way to a value: "tls_policy.floor",
	// "rule[0].match[2]".
	lines map[string]int
}

func readDocument(path string) (*document, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fileError(path, err)
	}
	defer f.Close() // opened to read only: nothing can be lost
	data, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err != nil {
		return nil, fileError(path, err)
	}
	if len(data) > maxConfigFile {
		return nil, fmt.Errorf("%s: more than %d octets", path, maxConfigFile)
	}
	return parseDocument(path, data)
}

// fileError puts the file before what the system says of it.
func fileError(path string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return fmt.Errorf("%s: %w", path, err)
}

func parseDocument(path string, data []byte) (*document, error) {
	d := &document{path: path, values: map[string]any{}, lines: map[string]int{}}
	// A byte order mark is what some editors leave; TOML 1.1 lets it be ignored.
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if err := toml.Unmarshal(data, &d.values); err != nil {
		e := &configError{File: path, What: strings.TrimPrefix(err.Error(), "toml: ")}
		var at *toml.DecodeError
		if errors.As(err, &at) {
			e.Line, _ = at.Position()
		}
		return nil, e
	}
	d.index(data)
	return d, nil
}

// index fills in lines. The library's decoder tells them only for errors that
// it finds itself, so the syntax tree is walked.
func (d *document) index(data []byte) {
	x := indexer{document: d, data: data, tables: map[string]int{}}
	var p unstable.Parser
	p.Reset(data)
	prefix := ""
	for p.NextExpression() {
		switch n := p.Expression(); n.Kind {
		case unstable.Table:
			prefix = x.keys("", n.Key())
		case unstable.ArrayTable:
			prefix = x.keys("", n.Key())
			number := x.tables[prefix]
			x.tables[prefix]++
			prefix = fmt.Sprintf("%s[%d]", prefix, number)
			d.lines[prefix] = x.last
		case unstable.KeyValue:
			x.keyValue(prefix, n)
		}
	}
}

// indexer counts lines as it goes through a file once, from front to back.
type indexer struct {
	*document
	data   []byte
	tables map[string]int // how many [[x]] of each name have been seen
	offset int            // how far lines have been counted
	line   int            // line feeds before offset
	last   int            // the line of the key seen last
}

// at gives the line of an offset. Keys come before their values in the file but
// after them in the tree, so an offset may lie behind the last one.
func (x *indexer) at(offset uint32) int {
	o := min(int(offset), len(x.data))
	if o < x.offset {
		x.line -= bytes.Count(x.data[o:x.offset], []byte("\n"))
	} else {
		x.line += bytes.Count(x.data[x.offset:o], []byte("\n"))
	}
	x.offset = o
	return x.line + 1
}

// keys notes each part of a dotted key below prefix and returns the whole way.
func (x *indexer) keys(prefix string, it unstable.Iterator) string {
	for it.Next() {
		n := it.Node()
		prefix = join(prefix, string(n.Data))
		x.last = x.at(n.Raw.Offset)
		if _, seen := x.lines[prefix]; !seen {
			x.lines[prefix] = x.last
		}
	}
	return prefix
}

func (x *indexer) keyValue(prefix string, n *unstable.Node) {
	way := x.keys(prefix, n.Key())
	x.value(way, n.Value())
}

func (x *indexer) value(way string, n *unstable.Node) {
	children := n.Children()
	switch n.Kind {
	case unstable.Array:
		for i := 0; children.Next(); i++ {
			element := fmt.Sprintf("%s[%d]", way, i)
			if c := children.Node(); c.Raw.Length > 0 {
				x.lines[element] = x.at(c.Raw.Offset)
			}
			x.value(element, children.Node())
		}
	case unstable.InlineTable:
		for children.Next() {
			x.keyValue(way, children.Node())
		}
	}
}

func join(table, key string) string {
	if table == "" || key == "" {
		return table + key
	}
	return table + "." + key
}

// line finds the line of a value or, where it is not written, of what holds it;
// 0 if nothing is known.
func (d *document) line(way string) int {
	for way != "" {
		if n, ok := d.lines[way]; ok {
			return n
		}
		way = way[:max(0, strings.LastIndexAny(way, ".["))]
	}
	return 0
}

// configError is one thing that is wrong with a configuration file.
type configError struct {
	File string
	Line int    // 0: the file as a whole
	Key  string // "tls_policy.floor"; empty for a syntax error
	What string // what is wrong, and what to write
}

func (e *configError) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.What)
	return b.String()
}
