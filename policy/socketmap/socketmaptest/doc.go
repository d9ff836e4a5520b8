// Package socketmaptest measures servers of socketmap_table(5) against a floor: a
// server that only echoes netstrings. What a Server costs beyond that is its own.
//
// Each server runs in a process of its own (Main, Start), so that its CPU time can
// be told from that of the load. Compare does the whole measurement:
//
//	func TestMain(m *testing.M) {
//		socketmaptest.Main(map[string]socketmaptest.Serve{
//			"echo": socketmaptest.Echo,
//			"ours": func(l net.Listener) error { … },
//		})
//		os.Exit(m.Run())
//	}
//
//	func BenchmarkOurs(b *testing.B) {
//		floor, ours := socketmaptest.Start(b, "echo"), socketmaptest.Start(b, "ours")
//		socketmaptest.Compare(b, floor, ours, 16, []byte("14:map ex.example,"))
//	}
package socketmaptest
