package milter

import (
	"strings"

	wire "github.com/emersion/go-milter"
)

// reply is an answer to Postfix. go-milter replaces the backend of a connection
// after every response whose Continue is false: one refused recipient, or the end
// of the first message, would lose the client's address, its login and the sender.
// So all of ours continue, and what belongs to a message is reset by the session.
type reply wire.Message

// Response gives the packet.
func (r *reply) Response() *wire.Message { return (*wire.Message)(r) }

// Continue is always true.
func (r *reply) Continue() bool { return true }

var (
	proceed = &reply{Code: byte(wire.ActContinue)}
	// accept is only ever the answer to the end of a message: Postfix takes it,
	// at an earlier stage, for the verdict on all that follows.
	accept = &reply{Code: byte(wire.ActAccept)}
)

// maxReply bounds the text of a reply; RFC 5321 §4.5.3.1.5 allows 512 octets with the code.
const maxReply = 450

// refuse is a reply with a code of its own, "NNN N.N.N", and a text. Postfix
// expands %% to %, as libmilter's smfi_setreply has it.
func refuse(code, text string) *reply {
	text = strings.ReplaceAll(code+" "+oneLine(text), "%", "%%")
	return &reply{Code: byte(wire.ActReplyCode), Data: append([]byte(text), 0)}
}

// oneLine makes a text fit for a reply or a reason: printable ASCII, bounded.
func oneLine(text string) string {
	var b strings.Builder
	for _, r := range text {
		if b.Len() >= maxReply {
			break
		}
		switch {
		case r == '§': // the one sign beyond ASCII in sentences of ours
			b.WriteString("section ")
		case r >= ' ' && r <= '~':
			b.WriteRune(r)
		default:
			b.WriteByte('?')
		}
	}
	return b.String()
}
