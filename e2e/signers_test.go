//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"strings"
	"testing"

	wire "github.com/emersion/go-milter"
	"github.com/emersion/go-msgauth/dkim"

	"github.com/postseal/postseal/e2e/lab"
)

// foldingSigner is a milter that signs, and writes its folds as fold says: other signers than OpenDKIM give CRLF to
// Postfix, as it stands in a message.
type foldingSigner struct {
	wire.NoOpMilter
	fold    string
	message bytes.Buffer
}

func (s *foldingSigner) Header(name, value string, _ *wire.Modifier) (wire.Response, error) {
	fmt.Fprintf(&s.message, "%s: %s\r\n", name, strings.ReplaceAll(value, "\n", "\r\n"))
	return wire.RespContinue, nil
}

func (s *foldingSigner) Headers(textproto.MIMEHeader, *wire.Modifier) (wire.Response, error) {
	s.message.WriteString("\r\n")
	return wire.RespContinue, nil
}

func (s *foldingSigner) BodyChunk(chunk []byte, _ *wire.Modifier) (wire.Response, error) {
	s.message.Write(chunk)
	return wire.RespContinue, nil
}

func (s *foldingSigner) Body(m *wire.Modifier) (wire.Response, error) {
	key, err := lab.DKIMKey("rsa2048")
	if err != nil {
		return nil, err
	}
	signer, err := dkim.NewSigner(&dkim.SignOptions{
		Domain: "lab.test", Selector: "s1", Signer: key,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
		HeaderKeys: []string{"From", "From", "To", "Date", "Message-ID", "Subject"},
	})
	if err != nil {
		return nil, err
	}
	if _, err := signer.Write(s.message.Bytes()); err != nil {
		return nil, err
	}
	if err := signer.Close(); err != nil {
		return nil, err
	}
	_, value, _ := strings.Cut(strings.TrimSuffix(signer.Signature(), "\r\n"), ": ")
	value = strings.ReplaceAll(value, "\r\n", s.fold)
	return wire.RespAccept, m.InsertHeader(1, "DKIM-Signature", value)
}

// serve serves the signer until the end of the test.
func (s *foldingSigner) serve(t *testing.T, world *lab.World, address string) {
	t.Helper()
	listener, err := world.Network.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &wire.Server{
		NewMilter: func() wire.Milter { return &foldingSigner{fold: s.fold} },
		Actions:   wire.OptAddHeader,
	}
	world.Go(func() { _ = server.Serve(listener) }) // ends with an error of the closed listener
	t.Cleanup(func() { listener.Close() })
}

// TestMLT03_SignersThatFold: however a signer folds the field that it hands to Postfix, receivers and we see the same.
func TestMLT03_SignersThatFold(t *testing.T) {
	for _, in := range installations(t) {
		t.Run("postfix-"+in.Version.String(), func(t *testing.T) {
			t.Parallel()
			s := worldOf(t, in, "testdata/worlds/fidelity.txtar")
			for _, c := range []struct{ name, fold, address, via string }{
				{"lf", "\n", "127.0.0.1:8004", "2004"},
				{"crlf", "\r\n", "127.0.0.1:8005", "2005"},
			} {
				(&foldingSigner{fold: c.fold}).serve(t, s.world, c.address)
				ctx, cancel := context.WithTimeout(t.Context(), stepDeadline)
				defer cancel()
				err := errors.Join(
					stepPost(ctx, s, []string{c.name, "u@dest.test", "via=" + c.via}),
					stepJudged(ctx, s, []string{c.name, "verdict=pass", "signatures=lab.test/s1 rsa-sha256 pass"}),
					stepReceived(ctx, s, []string{c.name, "dkim=pass"}),
				)
				if err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
			}
		})
	}
}
