package dkim_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postseal/postseal/milter/dkim"
)

// rfcKeys are the key records of RFC 6376 Appendix C and RFC 8463 Appendix A.2.
var rfcKeys = zone{
	"brisbane._domainkey.example.com":          {rfcRSA},
	"test._domainkey.football.example.com":     {rfc8463RSA},
	"brisbane._domainkey.football.example.com": {"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="},
}

const rfcRSA = "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQ" +
	"KBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYt" +
	"IxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v" +
	"/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhi" +
	"tdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"

const rfc8463RSA = "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTz" +
	"WRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutAC" +
	"DfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip" +
	"3G+2kryOTIKT+l/K4w3QIDAQAB"

// rfc6376 is the message of RFC 6376 Appendix A.2.
const rfc6376 = `DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
`

// rfc8463 is the message of RFC 8463 Appendix A.3: one key of each type.
const rfc8463 = `DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.`

func TestK020_RFC6376AppendixA(t *testing.T) {
	text := strings.ReplaceAll(rfc6376, "\n", "\r\n")
	for _, chunk := range []int{1, 7, 65535} {
		results := verify(t, &dkim.Verifier{Lookup: rfcKeys.lookup}, text, chunk)
		if len(results) != 1 {
			t.Fatalf("%d results", len(results))
		}
		r := results[0]
		want(t, r, "")
		if r.Domain != "example.com" || r.Selector != "brisbane" || r.Identity != "joe@football.example.com" || r.Key.Bits != 1024 || len(r.Names) != 6 {
			t.Errorf("%+v", r)
		}
	}
	// The folds and spaces of c=simple count.
	want(t, one(t, rfcKeys, strings.Replace(text, "  [192", " [192", 1)), dkim.HeaderChanged)
	want(t, one(t, rfcKeys, strings.Replace(text, "Hi.", "hi.", 1)), dkim.BodyChanged)
}

func TestK020_RFC8463AppendixA(t *testing.T) {
	// A bubble's time begins before t= of the example, which is no failure here
	// whatever the day is.
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Unix(1528637909, 0)))
		text := strings.ReplaceAll(rfc8463, "\n", "\r\n")
		for _, chunk := range []int{1, 7, 65535} {
			results := verify(t, &dkim.Verifier{Lookup: rfcKeys.lookup}, text, chunk)
			if len(results) != 2 {
				t.Fatalf("%d results", len(results))
			}
			for i, algorithm := range []string{"ed25519-sha256", "rsa-sha256"} {
				want(t, results[i], "")
				if results[i].Algorithm != algorithm || results[i].HeaderCanonicalization != dkim.Relaxed {
					t.Errorf("%+v", results[i])
				}
			}
		}
		for _, r := range verify(t, &dkim.Verifier{Lookup: rfcKeys.lookup}, strings.Replace(text, "Is dinner", "Was dinner", 1), 100) {
			want(t, r, dkim.HeaderChanged)
		}
	})
}
