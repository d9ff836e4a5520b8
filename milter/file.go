package milter

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
)

// ReadFile judges a message in a file: lines end in CRLF or LF, a "From " line of
// an mbox may stand first. What Postfix would do with it counts: a line that is
// no header field ends the header and begins the body.
func (i *Inspector) ReadFile(ctx context.Context, e Envelope, r io.Reader) (*Report, error) {
	e.File = true
	x := i.Begin(e)
	f := &file{r: bufio.NewReaderSize(r, 64<<10), x: x}
	if err := f.header(); err != nil {
		return nil, err
	}
	x.EndOfHeader()
	if err := f.body(); err != nil {
		return nil, err
	}
	return x.End(ctx), nil
}

// file reads a message line by line.
type file struct {
	r    *bufio.Reader
	x    *Inspection
	rest []byte // of the body, read with the header
}

// errEmpty is a file without a message.
var errEmpty = errors.New("the file is empty: no message to check")

func (f *file) header() error {
	var field []byte
	give := func() {
		if field != nil {
			f.x.Field(field)
		}
		field = nil
	}
	for first := true; ; first = false {
		line, err := f.line()
		switch {
		case err == io.EOF && first:
			return errEmpty
		case err == io.EOF:
			give()
			return nil
		case err != nil:
			return err
		case first && bytes.HasPrefix(line, []byte("From ")):
		case len(line) == 2: // CRLF
			give()
			return nil
		case field != nil && (line[0] == ' ' || line[0] == '\t'):
			field = append(field, line...)
		case isField(line):
			give()
			field = line
		default:
			give()
			f.rest = line
			return nil
		}
		if len(field) > maxHeader {
			give() // cut there, and told as such
		}
	}
}

// isField tells a header field by its name. RFC 5322 §3.6.8; RFC 5322 §4.5 allows
// blanks before the colon.
func isField(line []byte) bool {
	name, _, found := bytes.Cut(line, []byte{':'})
	name = bytes.TrimRight(name, " \t")
	return found && len(name) > 0 && bytes.IndexFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// line reads a line and gives it CRLF. One beyond maxHeader is cut.
func (f *file) line() ([]byte, error) {
	var line []byte
	for {
		part, err := f.r.ReadSlice('\n')
		if len(line) <= maxHeader {
			line = append(line, part...)
		}
		switch {
		case err == nil:
			line = bytes.TrimSuffix(line, []byte("\n"))
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != io.EOF:
			return nil, err
		case len(line) == 0:
			return nil, io.EOF
		}
		return append(bytes.TrimSuffix(line, []byte("\r")), '\r', '\n'), nil
	}
}

// body gives the rest in chunks, every line with CRLF.
func (f *file) body() error {
	f.x.Write(f.rest)
	chunk := make([]byte, 0, 64<<10)
	cr, open := false, false // the last octet was a CR; a line has no end yet
	for {
		part, err := f.r.ReadSlice('\n')
		for _, c := range part {
			if c == '\n' && !cr {
				chunk = append(chunk, '\r')
			}
			chunk = append(chunk, c)
			cr = c == '\r'
			open = c != '\n'
		}
		if len(chunk) >= 32<<10 || err == io.EOF {
			f.x.Write(chunk)
			chunk = chunk[:0]
		}
		switch {
		case err == nil, errors.Is(err, bufio.ErrBufferFull):
		case err == io.EOF:
			if open { // SMTP cannot carry a line without an end
				f.x.Write([]byte("\r\n"))
			}
			return nil
		default:
			return err
		}
	}
}
