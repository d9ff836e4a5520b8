package delegation

import (
	"errors"
	"fmt"
	"strconv"
	"unicode"
)

// Action is what Postfix is to do, in the words of access(5). The zero Action is
// DUNNO. Actions can be compared.
//
// Texts may come from anywhere: white space and line breaks become spaces, what is
// not printable ASCII becomes "?" (only with smtputf8 could Postfix pass it on), and
// what is beyond MaxText is cut off. Postfix puts `<address>: Recipient address
// rejected: ` before the text of a refusal.
type Action struct {
	verb   verb
	code   int
	status string // for verb prepend: the name of the header field
	text   string
}

type verb uint8

const (
	dunno verb = iota
	reject
	deferNow
	deferIfPermit
	warn
	info
	prepend
)

// Dunno is no opinion: Postfix asks the next restriction.
func Dunno() Action { return Action{} }

// Reject refuses for good. Code is from 500 to 559, but not 521, at which Postfix
// would disconnect; zero leaves it to access_map_reject_code. Status is the enhanced
// code (RFC 3463), of class 5; empty: 5.7.1.
//
// Postfix has a table of the codes of subject 1 that fit a recipient or a sender and turns
// those beyond it into X.1.0, and all of them into X.0.0 in the restrictions on clients
// and HELO: 5.1.10 never arrives as it is (src/smtpd/smtpd_dsn_fix.c).
func Reject(code int, status, text string) Action { return Action{reject, code, status, text} }

// Defer refuses for now, without asking what follows in the list of restrictions. Code
// is from 400 to 459, but not 421, at which Postfix would disconnect; zero leaves it
// to access_map_defer_code. Status is of class 4; empty: 4.7.1.
func Defer(code int, status, text string) Action { return Action{deferNow, code, status, text} }

// DeferIfPermit refuses for now what no later restriction refuses for good: a client
// does not come back for days with mail that has no chance. So this is the right
// Defer in general. The code is access_map_defer_code. Status is of class 4;
// empty: 4.7.1.
func DeferIfPermit(status, text string) Action { return Action{deferIfPermit, 0, status, text} }

// Warn lets Postfix log the text as a warning, and is DUNNO otherwise.
func Warn(text string) Action { return Action{warn, 0, "", text} }

// Info lets Postfix log the text, and is DUNNO otherwise.
func Info(text string) Action { return Action{info, 0, "", text} }

// Prepend adds a header field at the top of the message, and is DUNNO otherwise. A
// field longer than MaxField is not given.
//
// Postfix adds a field each time that it gets this answer: at RCPT, for every
// recipient in every restriction list that names the service. At DATA that is once,
// in general. Before MAIL and at END-OF-MESSAGE Postfix refuses it, so DUNNO is sent.
func Prepend(name, value string) Action { return Action{prepend, 0, name, value} }

// String returns the action as Postfix would read it at RCPT.
func (a Action) String() string {
	b, err := a.appendText(nil, Rcpt)
	if err != nil {
		return "DUNNO (" + err.Error() + ")"
	}
	return string(b)
}

// Why an action is not given.
var (
	errCode     = errors.New("a reply code that does not fit the action")
	errStatus   = errors.New("an enhanced status code that does not fit the action")
	errField    = errors.New("not a header field")
	errFieldLen = fmt.Errorf("a header field of more than %d bytes", MaxField)
	errStage    = errors.New("PREPEND before MAIL or at END-OF-MESSAGE")
)

const (
	actionPrefix = "action="
	actionEnd    = "\n\n"
	dunnoReply   = actionPrefix + "DUNNO" + actionEnd
)

// appendReply appends the answer as it stands on the wire. This is the only place
// where one is made. An action that cannot be given is DUNNO, with the reason as an
// error: whatever a slip of ours meant, mail is not refused by it.
func (a Action) appendReply(dst []byte, at State) ([]byte, error) {
	b, err := a.appendText(append(dst, actionPrefix...), at)
	if err != nil {
		return append(dst, dunnoReply...), err
	}
	return append(b, actionEnd...), nil
}

func (a Action) appendText(dst []byte, at State) ([]byte, error) {
	switch a.verb {
	case reject:
		return a.appendRefusal(dst, "REJECT", 500)
	case deferNow:
		return a.appendRefusal(dst, "DEFER", 400)
	case deferIfPermit:
		return a.appendRefusal(dst, "DEFER_IF_PERMIT", 400)
	case warn:
		return appendText(append(dst, "WARN "...), a.text, "no reason given", MaxText), nil
	case info:
		return appendText(append(dst, "INFO "...), a.text, "no reason given", MaxText), nil
	case prepend:
		return a.appendPrepend(dst, at)
	}
	return append(dst, "DUNNO"...), nil
}

// appendRefusal appends `word status text`, or `code status text`. The enhanced code
// is always there: without one Postfix would take it from the beginning of the text
// (src/smtpd/smtpd_check.c: dsn_split).
func (a Action) appendRefusal(dst []byte, word string, class int) ([]byte, error) {
	switch {
	case a.code == 0:
		dst = append(dst, word...)
	// RFC 5321 §4.2.1: the second digit is at most 5. 421 and 521 end the session.
	case a.code < class || a.code > class+59 || a.code == 421 || a.code == 521:
		return nil, errCode
	default:
		dst = strconv.AppendInt(dst, int64(a.code), 10)
	}
	status := a.status
	if status == "" {
		status = "5.7.1"
		if class == 400 {
			status = "4.7.1"
		}
	}
	if !validStatus(status) || int(status[0]-'0') != class/100 {
		return nil, errStatus
	}
	dst = append(dst, ' ')
	dst = append(dst, status...)
	return appendText(append(dst, ' '), a.text, "Access denied", MaxText), nil
}

func (a Action) appendPrepend(dst []byte, at State) ([]byte, error) {
	if at != Mail && at != Rcpt && at != Data {
		return nil, errStage
	}
	// RFC 5322 §2.2: printable ASCII without the colon.
	for i := range len(a.status) {
		if c := a.status[i]; c <= ' ' || c > '~' || c == ':' {
			return nil, errField
		}
	}
	if a.status == "" {
		return nil, errField
	}
	if len(a.status)+len(": ")+len(a.text) > MaxField {
		return nil, errFieldLen
	}
	dst = append(append(dst, "PREPEND "...), a.status...)
	before := len(dst)
	if dst = appendText(append(dst, ": "...), a.text, "", MaxField); len(dst) == before+len(": ") {
		return nil, errField
	}
	return dst, nil
}

// validStatus says whether s is an enhanced status code: RFC 3463 §2, class, subject
// and detail, the latter two of one to three digits.
func validStatus(s string) bool {
	if len(s) < 5 || s[1] != '.' || s[0] != '4' && s[0] != '5' {
		return false
	}
	digits, dots := 0, 0
	for i := 2; i < len(s); i++ {
		switch c := s[i]; {
		case c == '.' && dots == 0 && digits > 0:
			dots, digits = 1, 0
		case c >= '0' && c <= '9' && digits < 3:
			digits++
		default:
			return false
		}
	}
	return dots == 1 && digits > 0
}

// appendText appends text as one line of printable ASCII without spaces around it, at
// most limit bytes of it; other when nothing is left.
func appendText(dst []byte, text, other string, limit int) []byte {
	begin := len(dst)
	for _, r := range text {
		if len(dst)-begin >= limit {
			break
		}
		switch {
		case r > ' ' && r <= '~':
			dst = append(dst, byte(r))
		case !unicode.IsSpace(r):
			dst = append(dst, '?')
		case len(dst) > begin:
			dst = append(dst, ' ')
		}
	}
	for len(dst) > begin && dst[len(dst)-1] == ' ' {
		dst = dst[:len(dst)-1]
	}
	if len(dst) == begin {
		dst = append(dst, other...)
	}
	return dst
}
