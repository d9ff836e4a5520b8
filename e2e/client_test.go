//go:build linux

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/postseal/postseal/e2e/lab"
)

// client is an SMTP client that sends the bytes it is told to, which a library would not.
type client struct {
	conn net.Conn
	in   *bufio.Reader
}

// dialSMTP connects and reads the greeting.
func dialSMTP(ctx context.Context, network *lab.Network, address string) (*client, error) {
	conn, err := network.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	c := &client{conn, bufio.NewReader(conn)}
	return c, c.expect("220 ")
}

// reply reads a reply of one or more lines, which it joins by line feeds.
func (c *client) reply() (string, error) {
	var lines []string
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("after %q: %w", strings.Join(lines, "\n"), err)
		}
		lines = append(lines, strings.TrimRight(line, "\r\n"))
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n"), nil
		}
	}
}

// expect reads a reply, whose beginning must match.
func (c *client) expect(pattern string) error {
	re, err := regexp.Compile("^(?:" + pattern + ")")
	if err != nil {
		return err
	}
	reply, err := c.reply()
	if err == nil && !re.MatchString(reply) {
		err = fmt.Errorf("the reply is %q, want %q", reply, pattern)
	}
	return err
}

func (c *client) say(command, want string) error {
	if _, err := fmt.Fprintf(c.conn, "%s\r\n", command); err != nil {
		return err
	}
	if err := c.expect(want); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

// hello greets, as another client where login or address are given: XCLIENT makes Postfix believe it.
func (c *client) hello(login, address string) error {
	if login != "" || address != "" {
		command := "XCLIENT"
		if address != "" {
			command += " NAME=[UNAVAILABLE] ADDR=" + address
		}
		if login != "" {
			command += " LOGIN=" + login
		}
		if err := errors.Join(c.say("EHLO client.lab.test", "250"), c.say(command, "220")); err != nil {
			return err
		}
	}
	return c.say("EHLO client.lab.test", "250")
}

// envelope begins a message. A recipient that begins with "!" must be refused.
func (c *client) envelope(sender, parameters string, recipients []string) error {
	if err := c.say(strings.TrimSpace("MAIL FROM:<"+sender+"> "+parameters), "250"); err != nil {
		return err
	}
	for _, recipient := range recipients {
		want := "250"
		if rest, refused := strings.CutPrefix(recipient, "!"); refused {
			recipient, want = rest, "[45]"
		}
		if err := c.say("RCPT TO:<"+recipient+">", want); err != nil {
			return err
		}
	}
	return nil
}

// data sends the message by DATA.
func (c *client) data(message, want string) error {
	if err := c.say("DATA", "354"); err != nil {
		return err
	}
	stuffed := strings.ReplaceAll("\r\n"+message, "\r\n.", "\r\n..")[2:]
	if _, err := fmt.Fprint(c.conn, stuffed, ".\r\n"); err != nil {
		return err
	}
	return c.expect(want)
}

// bdat sends the message in two chunks, RFC 3030.
func (c *client) bdat(message, want string) error {
	half := len(message) / 2
	if _, err := fmt.Fprintf(c.conn, "BDAT %d\r\n%s", half, message[:half]); err != nil {
		return err
	}
	if err := c.expect("250"); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c.conn, "BDAT %d LAST\r\n%s", len(message)-half, message[half:]); err != nil {
		return err
	}
	return c.expect(want)
}

func (c *client) quit() error { return errors.Join(c.say("QUIT", "221"), c.conn.Close()) }

// letter is a message of a story: "hello" from s@lab.test, where no text is given. In a text, which has LF for CRLF, the
// line "Date: now" gets the time.
func letter(token, from, to, text string) string {
	now := time.Now().Format(time.RFC1123Z)
	if text == "" {
		text = fmt.Sprintf("From: <%[2]s>\nTo: <%[3]s>\nMessage-ID: <%[1]s@lab.test>\nDate: now\nSubject: %[1]s\n\nhello\n", token, from, to)
	}
	text = strings.Replace(text, "Date: now\n", "Date: "+now+"\n", 1)
	return strings.ReplaceAll(text, "\n", "\r\n")
}

// post TOKEN RECIPIENT… [TEXT] [via=[HOST:]PORT] [login=NAME] [client=ADDRESS] [sender=ADDRESS] [from=ADDRESS]
// [esmtp=PARAMETERS] [by=bdat] [reply=PATTERN] [conn=NAME]
func stepPost(ctx context.Context, s *story, words []string) error {
	words, text := splitText(words)
	words, options := splitOptions(words)
	if len(words) < 2 {
		return errors.New("want TOKEN RECIPIENT… [TEXT] [option…]")
	}
	o := postOptions{sender: "s@lab.test", from: "s@lab.test", reply: "250 ", via: smtpdAddress}
	if err := o.read(options); err != nil {
		return err
	}
	c, err := s.connection(ctx, o)
	if err != nil {
		return err
	}
	if err := c.envelope(o.sender, o.esmtp, words[1:]); err != nil {
		return err
	}
	send := c.data
	if o.by == "bdat" {
		send = c.bdat
	}
	if err := send(letter(words[0], o.from, strings.TrimPrefix(words[1], "!"), text), o.reply); err != nil {
		return err
	}
	if o.conn != "" {
		return nil
	}
	return c.quit()
}

// splitText takes out the word that is a text, as it has lines.
func splitText(words []string) (others []string, text string) {
	i := slices.IndexFunc(words, func(word string) bool { return strings.Contains(word, "\n") })
	if i < 0 {
		return words, ""
	}
	return slices.Concat(words[:i], words[i+1:]), words[i]
}

type postOptions struct{ via, login, client, sender, from, esmtp, by, reply, conn string }

func (o *postOptions) read(options map[string]string) error {
	fields := map[string]*string{
		"via": &o.via, "login": &o.login, "client": &o.client, "sender": &o.sender, "from": &o.from,
		"esmtp": &o.esmtp, "by": &o.by, "reply": &o.reply, "conn": &o.conn,
	}
	for name, value := range options {
		field := fields[name]
		if field == nil {
			return fmt.Errorf("unknown option %q", name)
		}
		*field = value
	}
	if !strings.Contains(o.via, ":") {
		o.via = "127.0.0.1:" + o.via
	}
	return nil
}

// connection is the one that stays open under its name, or a new one.
func (s *story) connection(ctx context.Context, o postOptions) (*client, error) {
	if c := s.clients[o.conn]; c != nil {
		return c, nil
	}
	c, err := dialSMTP(ctx, s.world.Network, o.via)
	if err != nil {
		return nil, err
	}
	if o.conn != "" {
		s.clients[o.conn] = c
	}
	return c, c.hello(o.login, o.client)
}

// talk NAME DIALOGUE [via=[HOST:]PORT]: lines "C: …" are sent, "S: PATTERN" must come. The connection stays open under
// its name, also for post with conn=NAME, and its greeting is not part of the dialogue.
func stepTalk(ctx context.Context, s *story, words []string) error {
	o := postOptions{via: smtpdAddress}
	if last := len(words) - 1; last > 1 && strings.HasPrefix(words[last], "via=") {
		if err := o.read(map[string]string{"via": strings.TrimPrefix(words[last], "via=")}); err != nil {
			return err
		}
		words = words[:last]
	}
	if len(words) != 2 {
		return errors.New("want NAME DIALOGUE [via=[HOST:]PORT]")
	}
	c := s.clients[words[0]]
	if c == nil {
		var err error
		if c, err = dialSMTP(ctx, s.world.Network, o.via); err != nil {
			return err
		}
		s.clients[words[0]] = c
	}
	return c.talk(words[1])
}

// talk holds a dialogue.
func (c *client) talk(dialogue string) error {
	for line := range strings.Lines(dialogue) {
		line = strings.TrimSuffix(line, "\n")
		var err error
		if said, ok := strings.CutPrefix(line, "C: "); ok {
			_, err = fmt.Fprintf(c.conn, "%s\r\n", said)
		} else if line == "C:" {
			_, err = fmt.Fprint(c.conn, "\r\n")
		} else if want, ok := strings.CutPrefix(line, "S: "); ok {
			err = c.expect(want)
		} else if line != "" {
			err = fmt.Errorf("dialogue line %q begins with neither C: nor S:", line)
		}
		if err != nil {
			return fmt.Errorf("at %q: %w", line, err)
		}
	}
	return nil
}

// mail TOKEN RECIPIENT… [TEXT] [from=ADDRESS]: like send, with a text of its own and a whole header.
func stepMail(ctx context.Context, s *story, words []string) error {
	words, text := splitText(words)
	words, options := splitOptions(words)
	if len(words) < 2 {
		return errors.New("want TOKEN RECIPIENT… [TEXT] [from=ADDRESS]")
	}
	o := postOptions{from: "s@lab.test", sender: "s@lab.test"}
	if err := o.read(options); err != nil {
		return err
	}
	text = strings.ReplaceAll(letter(words[0], o.from, words[1], text), "\r\n", "\n")
	return s.postfix.Sendmail(ctx, o.sender, text, words[1:]...)
}
