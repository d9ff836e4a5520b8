//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/postseal/postseal/e2e/lab"
)

// logField is one field of a logfmt line.
var logField = regexp.MustCompile(`(\w+)=("(?:[^"\\]|\\.)*"|\S*)`)

// judgements are the milter's lines about messages, by token and in order: fields by name.
func (s *story) judgements() map[string][]map[string]string {
	tokens := s.postfix.Log.Tokens()
	all := make(map[string][]map[string]string)
	for line := range strings.Lines(s.postseal.LogText()) {
		fields := make(map[string]string)
		for _, m := range logField.FindAllStringSubmatch(line, -1) {
			value := m[2]
			if text, err := strconv.Unquote(value); err == nil {
				value = text
			}
			fields[m[1]] = value
		}
		if token := tokens[fields["queue_id"]]; fields["msg"] == "message" && token != "" {
			all[token] = append(all[token], fields)
		}
	}
	return all
}

// judged TOKEN FIELD=PATTERN…: the next line of the milter about that message has these fields, whole.
func stepJudged(ctx context.Context, s *story, words []string) error {
	words, want := splitOptions(words)
	if len(words) != 1 {
		return errors.New("want TOKEN FIELD=PATTERN…")
	}
	var fields map[string]string
	err := until(ctx, func() error {
		all := s.judgements()[words[0]]
		if len(all) <= s.judged[words[0]] {
			return fmt.Errorf("the milter has no further line about %s", words[0])
		}
		fields = all[s.judged[words[0]]]
		return nil
	})
	if err != nil {
		return err
	}
	s.judged[words[0]]++
	for name, pattern := range want {
		re, err := regexp.Compile("^(?:" + pattern + ")$")
		if err != nil {
			return err
		}
		value, there := fields[name]
		if !there || !re.MatchString(value) {
			return fmt.Errorf("%s is %q, want %q: %v", name, value, pattern, fields)
		}
	}
	return nil
}

// received TOKEN [dkim=RESULT] [header=PATTERN] [body=PATTERN] [from=ADDRESS] [to=ADDRESS,…]: a sink has it, and what came there is
// what is said: dkim= is the verdict of other verifiers on the bytes, pass, fail or none.
func stepReceived(ctx context.Context, s *story, words []string) error {
	words, options := splitOptions(words)
	if len(words) != 1 {
		return errors.New("want TOKEN [dkim=RESULT] [header=PATTERN] [body=PATTERN] [from=ADDRESS] [to=ADDRESS,…]")
	}
	var m lab.Message
	err := until(ctx, func() error {
		copies := s.world.Received(words[0])
		if len(copies) == 0 {
			return fmt.Errorf("no sink has %s", words[0])
		}
		m = copies[len(copies)-1]
		return nil
	})
	if err != nil {
		return err
	}
	for name, want := range options {
		var got string
		switch name {
		case "dkim":
			got, err = s.receive(ctx, m.Data)
		case "from":
			got = m.From
		case "to":
			got = strings.Join(m.To, ",")
		case "header", "body":
			part, body, _ := bytes.Cut(m.Data, []byte("\r\n\r\n"))
			if name == "body" {
				part = bytes.Join(bytes.Fields(body), []byte(" ")) // bounces are folded
			}
			var re *regexp.Regexp
			if re, err = regexp.Compile("(?im)" + want); err == nil && re.Match(part) {
				got = want
			}
		default:
			err = fmt.Errorf("unknown option %q", name)
		}
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%s is %q, want %q, in\n%s", name, got, want, m.Data)
		}
	}
	return nil
}

// receive has two other verifiers judge the bytes, which must be of one mind.
func (s *story) receive(ctx context.Context, message []byte) (string, error) {
	first, err := s.world.Receive(ctx, message)
	if err != nil {
		return "", err
	}
	second, err := verify(s.world.Authority, message)
	if err == nil && second != "" && first != second {
		err = fmt.Errorf("opendkim says %s, go-msgauth %s of\n%s", first, second, message)
	}
	return first, err
}

// misleading is a tag z= that go-msgauth cannot get over: it takes every "b=" of a signature for the signature's own tag
// (github.com/emersion/go-msgauth issue 77).
var misleading = regexp.MustCompile(`[;\s]z=[^;]*b\s*=`)

// verify judges by go-msgauth: "pass" where any signature passes, "fail", "none", or "" where the library is misled.
func verify(authority *lab.Authority, message []byte) (string, error) {
	if misleading.Match(message) {
		return "", nil
	}
	results, err := dkim.VerifyWithOptions(bytes.NewReader(message), &dkim.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) { return authority.TXT(name), nil },
	})
	if err != nil {
		return "", fmt.Errorf("go-msgauth: %w", err)
	}
	verdict := "none"
	for _, r := range results {
		if r.Err == nil {
			return "pass", nil
		}
		verdict = "fail"
	}
	return verdict, nil
}

// queued PATTERN: mailq(1) has a matching line, now or soon.
func stepQueued(ctx context.Context, s *story, words []string) error {
	return s.grep(ctx, words, func() string {
		out, err := s.postfix.Run(ctx, "", "postqueue", "-p")
		if err != nil {
			return err.Error()
		}
		return out
	})
}

// release TOKEN: the message leaves the hold queue.
func stepRelease(ctx context.Context, s *story, words []string) error {
	if len(words) != 1 {
		return errors.New("want TOKEN")
	}
	for id, token := range s.postfix.Log.Tokens() {
		if token == words[0] {
			_, err := s.postfix.Run(ctx, "", "postsuper", "-H", id)
			return err
		}
	}
	return fmt.Errorf("the log has no message %s", words[0])
}

// signer NAME start|stop
func stepSigner(ctx context.Context, s *story, words []string) error {
	if len(words) != 2 {
		return errors.New("want NAME start|stop")
	}
	signer := s.world.Signers[words[0]]
	switch {
	case signer == nil:
		return fmt.Errorf("no signer %s", words[0])
	case words[1] == "start":
		return signer.Start(ctx)
	case words[1] == "stop":
		return signer.Stop()
	}
	return fmt.Errorf("unknown action %q", words[1])
}
