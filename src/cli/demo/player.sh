# One player of the demonstration: an ordinary program that reads lines and answers with a command.
# The broker gave it RELAY_AGENT_NAME, RELAY_AGENT_TOKEN and RELAY_BASE_URL; the demo added the rest.
echo "$RELAY_AGENT_NAME is at the table"
while IFS= read -r line; do
    case $line in
    *"ball "[0-9]*)
        ball=${line##*ball }
        ball=${ball%%[!0-9]*}
        [ "$ball" -lt "$DEMO_LAST" ] && "$DEMO_BROKER" send "$DEMO_PEER" "ball $((ball + 1))"
        ;;
    esac
done
