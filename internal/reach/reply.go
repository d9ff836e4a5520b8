package reach

import (
	"bufio"
	"errors"
	"io"
	"strings"
)

var (
	errLine  = errors.New("a line of the reply is too long")
	errReply = errors.New("the reply has too many lines")
)

// reply is an SMTP reply (RFC 5321 §4.2): the code of its last line, and of
// every line that has a code what follows the code and its separator.
type reply struct {
	code  int
	lines []string // printable
}

// text is the reply on one line, as Postfix quotes it.
func (r reply) text() string {
	return clip(strings.TrimSpace(itoa3(r.code)+" "+strings.Join(r.lines, " ")), maxText)
}

// readReply reads one reply as smtp_chat_resp() does: a line without three
// digits and a space, hyphen or end is garbage and skipped, lines end in LF with
// or without CR, and the last line's code counts. Nothing behind the reply is
// consumed. Errors are those of the reader, io.ErrUnexpectedEOF within a reply,
// and those of too much text.
func readReply(in *bufio.Reader) (reply, error) {
	var r reply
	for range maxLines {
		line, err := readLine(in)
		if err != nil {
			if err == io.EOF && len(r.lines) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return reply{}, err
		}
		code, text, more, ok := cutCode(line)
		if !ok {
			continue
		}
		r.code = code
		r.lines = append(r.lines, text)
		if !more {
			return r, nil
		}
	}
	return reply{}, errReply
}

// readLine reads a line without its end, made printable.
func readLine(in *bufio.Reader) (string, error) {
	line, err := in.ReadSlice('\n')
	switch {
	case err == nil && len(line) <= maxLine:
	case err == nil, errors.Is(err, bufio.ErrBufferFull):
		return "", errLine
	case err == io.EOF && len(line) > 0:
		return "", io.ErrUnexpectedEOF
	default:
		return "", err
	}
	return printable(strings.TrimRight(string(line), "\r\n")), nil
}

// cutCode takes the three digits off a line; more: it is not the last one.
func cutCode(line string) (code int, text string, more, ok bool) {
	if len(line) < 3 {
		return 0, "", false, false
	}
	for i := range 3 {
		if line[i] < '0' || line[i] > '9' {
			return 0, "", false, false
		}
		code = code*10 + int(line[i]-'0')
	}
	switch {
	case len(line) == 3:
		return code, "", false, true
	case line[3] == ' ':
		return code, line[4:], false, true
	case line[3] == '-':
		return code, line[4:], true, true
	default:
		return 0, "", false, false
	}
}

// extensions are what a reply to EHLO says (RFC 5321 §4.1.1.1).
type extensions struct {
	greeting string   // the name that the server gives itself
	keywords []string // each with its parameters
	startTLS bool
}

// parseExtensions reads them as smtp_helo() does: white space before a keyword
// is skipped, "=" ends it as well as a space, and lines without a word do not
// count, not even as the first.
func parseExtensions(r reply) extensions {
	var e extensions
	for _, line := range r.lines {
		line = strings.TrimLeft(line, " =")
		word := line
		if end := strings.IndexAny(line, " ="); end >= 0 {
			word = line[:end]
		}
		switch {
		case word == "":
		case e.greeting == "":
			e.greeting = word
		default:
			e.keywords = append(e.keywords, line)
			e.startTLS = e.startTLS || strings.EqualFold(word, "STARTTLS")
		}
	}
	return e
}

// printable replaces what is not printable ASCII by "?", as Postfix does before
// it looks at a reply; tabs become spaces.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ' || r > '~':
			return '?'
		default:
			return r
		}
	}, s)
}

// clip cuts a text for people; ASCII only.
func clip(s string, n int) string {
	if len(s) > n {
		return s[:n-3] + "..."
	}
	return s
}

func itoa3(code int) string {
	return string([]byte{byte('0' + code/100%10), byte('0' + code/10%10), byte('0' + code%10)})
}
