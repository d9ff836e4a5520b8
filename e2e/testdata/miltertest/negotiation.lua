-- MLT-02: what is negotiated, with Postfix's version of the protocol and with an old one.
for _, version in ipairs({ 6, 2 }) do
	local conn = connect()
	must(mt.negotiate(conn, version, nil, nil), "negotiation")
	for name, action in pairs({ add = SMFIF_ADDHDRS, change = SMFIF_CHGHDRS, body = SMFIF_CHGBODY, rcpt = SMFIF_ADDRCPT, from = SMFIF_CHGFROM }) do
		if mt.test_action(conn, action) then error("it wants to change: " .. name) end
	end
	if not mt.test_action(conn, SMFIF_QUARANTINE) then error("it cannot hold") end
	if not mt.test_option(conn, SMFIP_HDR_LEADSPC) then error("it wants no leading space") end
	for name, step in pairs({ connect = SMFIP_NOCONNECT, mail = SMFIP_NOMAIL, rcpt = SMFIP_NORCPT, header = SMFIP_NOHDRS, body = SMFIP_NOBODY }) do
		if mt.test_option(conn, step) then error("it does not want to see: " .. name) end
	end
	mt.disconnect(conn)
end
